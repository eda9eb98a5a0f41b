"""As much of bash as launch scripts need; what bash itself says is the measure."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.autotune.reading.shell import read_script

SCRIPT = r"""#!/bin/bash
export NODES=4 NAME="a b"   # a comment
GPUS=$((NODES * 8))
BATCH=${BATCH:-64}
ARGS="
    --num-layers 32 \
    --hidden-size 4096
"
MODEL=(
    --swiglu   # a comment in an array
    --name "$NAME" --pattern '([0]*3+[1]*2)'
)
MODEL+=(--more ${GPUS})
run --gpus=$GPUS $ARGS "${MODEL[@]}" --batch ${BATCH} --quote \"x\" "" "$@"
run --second '$NOT' "\$NOT" a#b; run --third && run --fourth
"""


def in_bash(script: str) -> list[list[str]]:
    """Commands called `run`, as bash expands them."""
    function = 'run() { printf \'%s\\0\' "$#" "$@"; }\n'
    done = subprocess.run(["bash", "-c", function + script], capture_output=True, text=True, check=True)
    words, commands = done.stdout.split("\0")[:-1], []
    while words:
        number = int(words[0])
        commands.append(["run", *words[1 : number + 1]])
        words = words[number + 1 :]
    return commands


def test_a_script_reads_as_in_bash():
    assert read_script(SCRIPT).commands == in_bash(SCRIPT)
    assert len(in_bash(SCRIPT)) == 4


PIECE = st.sampled_from(
    [
        "a",
        "--n",
        "=",
        "3",
        '"b c"',
        "'d e'",
        "${A}",
        '"$B"',
        "${B}",
        "${C:-7}",
        "$((A+2*3))",
        '"${L[@]}"',
        "\\ ",
        "x#y",
    ]
)
LINE = st.lists(st.lists(PIECE, min_size=1, max_size=3).map("".join), max_size=5).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=3))
def test_words_are_those_of_bash(lines):
    script = "A=12\nB='x  y'\nL=(p 'q r')\n" + "\n".join(f"run {line}" for line in lines) + "\n"
    assert read_script(script).commands == in_bash(script)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("run $UNSET ${UNSET}x", ["run", "$UNSET", "${UNSET}x"]),
        ("run --n=$(nproc --all)", ["run", "--n=$(nproc", "--all)"]),
        ('run "$(nproc)" $1', ["run", "$(nproc)", "$1"]),
        ("A=$(hostname)\nrun $A", ["run", "$(hostname)"]),
        ("run $((UNSET*2))", ["run", "$((UNSET*2))"]),
        ("run 'open", ["run", "open"]),
        ('run "open', ["run", "open"]),
        ("run $", ["run", "$"]),
        ('run "${1:-"a b"}" ${2} ${3-c}', ["run", "a b", "${2}", "c"]),
        ("A=8\nrun ${B:-${A}} ${A:-${B}} ${B:-${C:-4}}x", ["run", "8", "8", "4x"]),
        ("A=6\nrun $((2*(A/(1+1)))) $((1))", ["run", "6", "1"]),
    ],
)
def test_what_only_a_run_knows_stays(script, words):
    assert read_script(script).commands == [words]


def test_defined_variables_come_first():
    script = read_script("N=${N:-2}\nM=3\nrun $N $M $P", {"N": "8", "P": "5"})
    assert script.commands == [["run", "8", "3", "5"]]


@pytest.mark.parametrize("end", ["2>&1", "> out.txt", ">>out 2>err", "&> both", "< in", "2>&1 | tee log"])
def test_redirections_are_no_arguments(end):
    assert read_script(f"run --a 1 {end}").commands[0] == ["run", "--a", "1"]


def test_carriage_returns_and_continued_lines():
    assert read_script("run --a 1 \\\r\n    --b 2\r\n").commands == [["run", "--a", "1", "--b", "2"]]
