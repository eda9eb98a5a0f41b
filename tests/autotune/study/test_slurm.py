"""The Slurm array of workers."""

import subprocess
from pathlib import Path

import pytest

from towtank.autotune.study.records import StudyError
from towtank.autotune.study.slurm import Job, slurm_script

GOLDEN = Path(__file__).parents[2] / "golden" / "slurm" / "workers.sh"


def test_the_script_is_the_golden_one_and_bash_reads_it(tmp_path: Path) -> None:
    job = Job(nodes=4, workers=16, time="02:00:00", directives=["--account=abc"])
    text = slurm_script("/scratch/my studies/llama.journal", "llama", job)
    assert text == GOLDEN.read_text()
    file = tmp_path / "workers.sh"
    file.write_text(text)
    checked = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_workers_get_further_options_quoted() -> None:
    text = slurm_script("/a.journal", "llama", Job(), options=["--profiles", "/scratch/my profiles"])
    assert "--study llama --profiles '/scratch/my profiles'\n" in text


def test_storages_that_nodes_cannot_share_are_refused() -> None:
    with pytest.raises(StudyError, match="cannot share a storage in memory"):
        slurm_script("memory", "llama", Job())
    with pytest.raises(StudyError, match="locks of SQLite do not hold across nodes"):
        slurm_script("sqlite:////a.db", "llama", Job(nodes=2))
    slurm_script("sqlite:////a.db", "llama", Job(nodes=1, workers=4))
    with pytest.raises(StudyError, match="has a password") as raised:
        slurm_script("postgresql+psycopg://me:secret@host/d", "llama", Job())
    assert "secret" not in str(raised.value)


def test_wrong_figures_are_told_all_at_once() -> None:
    job = Job(nodes=0, workers=-1, time="soon", directives=["account=abc", "--a\nrm"])
    with pytest.raises(StudyError) as raised:
        slurm_script("/a.journal", "llama", job)
    text = str(raised.value)
    for fault in (
        "--slurm-nodes 0",
        "--slurm-workers -1",
        "--slurm-time soon",
        "'account=abc'",
        r"'--a\nrm'",
    ):
        assert fault in text


@pytest.mark.parametrize("time", ["30", "90:00", "02:00:00", "1-12", "1-12:30", "1-12:30:00"])
def test_times_of_sbatch_are_accepted(time: str) -> None:
    assert f"#SBATCH --time={time}\n" in slurm_script("/a.journal", "llama", Job(time=time))
