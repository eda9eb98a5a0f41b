"""Why a run ended, from what its processes left."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from towtank.executor.errors import DataError, LostRankError, NonFiniteLossError, RunError
from towtank.executor.launching import local


def ended(folder: Path, *ranks: tuple[int, Exception | None]) -> Exception:
    """What is told of ranks that ended with these codes (negative: signals) and left these exceptions."""
    processes = []
    for number, (code, error) in enumerate(ranks):
        ending = f"import os; os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
        process = subprocess.Popen([sys.executable, "-S", "-c", ending])
        process.wait()
        processes.append(local._Rank(number, process))
        if error is not None:
            local.failure_file(folder, number).write_bytes(pickle.dumps(error))
    with pytest.raises(RunError) as raised:
        local._watch(processes, folder)
    return raised.value


def test_a_killed_rank_is_named_before_those_that_lost_it(tmp_path: Path) -> None:
    error = ended(tmp_path, (4, LostRankError("rank 0: another rank is gone")), (-9, None))
    assert isinstance(error, LostRankError)
    assert str(error) == (
        "rank 1 of 2 ended by signal SIGKILL (killed, or out of memory); the other 1 were stopped"
    )


def test_what_a_rank_says_goes_before_its_loss_by_the_others(tmp_path: Path) -> None:
    own = NonFiniteLossError("step 3 of 9: the loss is nan")
    error = ended(tmp_path, (4, LostRankError("rank 0: another rank is gone")), (3, own), (0, None))
    assert isinstance(error, NonFiniteLossError)
    assert str(error) == "step 3 of 9: the loss is nan"


def test_exceptions_of_ours_cross_processes_and_others_become_text() -> None:
    mine = DataError("data x: no such file")
    assert local.portable(mine, 1) is mine
    other = local.portable(ZeroDivisionError("division by zero"), 1)
    assert isinstance(other, RunError)
    assert str(other) == "rank 1: ZeroDivisionError: division by zero"
    assert pickle.loads(pickle.dumps(mine)).args == mine.args
