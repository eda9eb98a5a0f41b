"""Launch scripts as bash runs them."""

import subprocess

import pytest

from towtank.autotune.export.targets import export


def test_the_first_of_many_nodes_is_the_master(job):
    """More names than a pipe holds: whoever leaves before the last one would end the script."""
    text = export(job(data=8, global_batch=8), "slurm").files[0].text
    (line,) = [line for line in text.splitlines() if line.startswith("MASTER_ADDR=")]
    names = "scontrol() { seq -f 'nid%06.0f' 1 30000; }\n"
    script = f"set -euo pipefail\nSLURM_JOB_NODELIST=x\n{names}{line}\necho $MASTER_ADDR\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "nid000001\n")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("deepspeed", ["train.py", "--deepspeed", "--deepspeed_config", "my file.json"]),
        ("torchtitan", ["-m", "torchtitan.train", "--module", "my file", "--config", "towtank_plan"]),
        ("megatron-bridge", ["my file.py"]),
    ],
)
def test_names_of_files_are_one_word(job, target, words):
    text = export(job(data=8, global_batch=8), target, stem="my file").files[1].text
    script = text.replace("torchrun --nnodes", "printf '%s\\n' --nnodes")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-len(words) :] == words
