"""`towtank memorize`: what it prints, and what it says of wrong options before it trains."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from towtank.cli.memorize import Documents, Model
from towtank.executor.memorize import Experiment

Run = Any
QUICK = [
    "memorize", "--documents", "2", "--length", "20", "--answer", "4", "--unrelated", "2", "--warm-up", "1",
    "--layers", "1", "--hidden", "32",
]  # fmt: skip


def test_all_faults_are_told_at_once(towtank: Run, tmp_path: Path) -> None:
    found = towtank(
        "memorize", "--times", "1,x", "--goldfish", "1", "--documents", "0", "--answer", "64", "--hidden", "40",
        "--plot", str(tmp_path / "plot.png"), "--seed", "-1", "--learning-rate", "nan",
    )  # fmt: skip
    assert (found.code, found.out) == (2, "")
    for told in (
        "--times 1,x must be whole numbers",
        "goldfish k=1 must be 2 or more",
        "documents = 0, but it must be 1 or more",
        "answer = 64 leaves nothing of length = 64",
        "hidden = 40, but it must be a multiple of 32",
        "is written as SVG; name it plot.svg",
        "seed = -1, but it must be 0 or more",
        "learning_rate = nan, but it must be more than 0",
    ):
        assert told in found.err
    assert "Traceback" not in found.err


def test_a_mask_that_drops_nothing_is_refused(towtank: Run) -> None:
    found = towtank(*QUICK, "--goldfish-context", "21")
    assert (found.code, found.out) == (2, "")
    assert "--goldfish-context 21 is more than the 20 bytes of a document" in found.err


def test_what_is_tested_is_what_the_command_does() -> None:
    """The options' defaults are those of the experiment whose outcome a slow test holds."""
    experiment = Experiment()
    given = {**asdict(Documents()), **asdict(Model())}
    assert given.pop("times") == ",".join(map(str, experiment.times))
    assert given == {name: getattr(experiment, name) for name in given}


def test_too_little_text_is_told_before_training(towtank: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a short text, but long enough for some pieces of it" * 2)
    found = towtank(*QUICK, "--data", str(tmp_path / "text"))
    assert (found.code, found.out) == (2, "")
    assert "holds 5 pieces of 20 bytes, but 10 are needed" in found.err


def test_tables_plot_and_json(towtank: Run, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    found = towtank(*QUICK, "--times", "0,2", "--plot", str(plot))
    assert found.code == 0, found.err
    assert "plain loss\n" in found.out
    assert "goldfish loss, k = 2, h = 13 (" in found.out
    assert [line.split()[:4] for line in found.out.splitlines() if " x  " in line] == [
        ["0", "x", "0", "2"], ["2", "x", "0", "2"],
    ] * 2  # fmt: skip
    assert plot.read_text().startswith("<svg")
    found = towtank(*QUICK, "--times", "0,2", "--goldfish", "3", "--goldfish-context", "4", "--json")
    document = json.loads(found.out)
    assert document["experiment"]["times"] == [0, 2]
    assert [each["goldfish"] for each in document["outcomes"]] == [None, {"k": 3, "h": 4}]
    assert document["outcomes"][1]["buckets"][1]["documents"] == 2


def test_a_loss_that_is_no_number_ends_with_3(towtank: Run) -> None:
    found = towtank(*QUICK, "--learning-rate", "1e38")
    assert found.code == 3
    assert "take a lower learning rate" in found.err
