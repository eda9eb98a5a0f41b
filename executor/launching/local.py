"""The processes of a run on this machine: start them, watch them, and end them all when one is gone."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from towtank.executor.errors import ExecutorError, LaunchError, LostRankError, RunError
from towtank.executor.launching.alive import PATIENCE_S, Watch, alive_file
from towtank.executor.launching.environment import Process
from towtank.executor.launching.ports import free_port
from towtank.executor.launching.request import RunOutcome, RunRequest
from towtank.executor.launching.signals import Termination, terminations_held_back
from towtank.executor.measured.host_memory import merging
from towtank.hardware_profiles.calibrated.here import usable_cores

REQUEST: Final = "request.pickle"
OUTCOME: Final = "outcome.pickle"
_POLL_S: Final = 0.05
_GRACE_S: Final = 2.0
"""Time for the other ranks to say why they ended, once one has."""
_REAP_S: Final = 10.0
_MANY: Final = 16
_MANY_A_CORE: Final = 4
"""Processes that are started on any machine, and for each of its cores."""


def failure_file(folder: Path, rank: int) -> Path:
    """Where a rank writes the exception that ended it."""
    return folder / f"failure-{rank}.pickle"


def threads_of(request: RunRequest, processes: int) -> int:
    """CPU threads of each of so many processes on this machine."""
    return request.threads or max(1, usable_cores() // processes)


def run_processes(request: RunRequest, *, patience_s: float = PATIENCE_S) -> RunOutcome:
    """Run a request in one new process for each device of its plan, on this machine.

    SIGTERM to this process asks the ranks to save and end. A rank that gives no sign of life for `patience_s` seconds
    counts as lost.

    Raises:
        ExecutorError: the run cannot be done as asked.
        RunError: it began and failed: the loss is no number, or a process has ended or hangs.
        KeyboardInterrupt: Ctrl-C, when all processes have ended.
    """
    size = request.settings.plan.num_devices
    _check_devices(request, size)
    with tempfile.TemporaryDirectory(prefix="towtank-run-") as name:
        folder = Path(name)
        (folder / REQUEST).write_bytes(pickle.dumps(request))
        with _started(folder, size, threads_of(request, size)) as ranks:
            _watch(ranks, folder, patience_s)
        return _read_outcome(folder)


def _check_devices(request: RunRequest, size: int) -> None:
    """A plan for a cluster is refused here: thousands of processes would bring the machine down.

    Raises:
        LaunchError: this machine is too small.
    """
    if request.settings.device == "cpu":
        most = max(_MANY, _MANY_A_CORE * usable_cores())
        if size > most:
            raise LaunchError(
                f"the plan has {size} devices, and this machine with {usable_cores()} cores starts {most} processes "
                "at most; choose a smaller plan, or start it with torchrun or srun on more nodes"
            )
        return
    import torch

    count = torch.cuda.device_count()
    if count < size:
        raise LaunchError(
            f"the plan has {size} devices, but this machine has {count} GPUs; start it with torchrun or srun on more "
            "nodes, choose a smaller plan, or --device cpu"
        )


@dataclass(frozen=True, slots=True)
class _Rank:
    number: int
    process: "subprocess.Popen[bytes]"


@contextmanager
def _started(folder: Path, size: int, threads: int) -> Iterator[Sequence[_Rank]]:
    """Start the ranks; whatever happens, none is left behind."""
    port = free_port()
    ranks: list[_Rank] = []
    asked = Termination()

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.ask(number, frame)
        for one in ranks:
            one.process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        with terminations_held_back():
            for rank in range(size):
                place = Process(rank, size, rank, size, "127.0.0.1", port, "towtank")
                ranks.append(_Rank(rank, _start(folder, place, threads)))
        if asked.asked:  # which those did not hear that were not there yet
            pass_on(signal.SIGTERM, None)
        yield ranks
    finally:
        for one in ranks:
            one.process.kill()
        for one in ranks:
            one.process.wait(_REAP_S)
        signal.signal(signal.SIGTERM, before)


def _start(folder: Path, place: Process, threads: int) -> "subprocess.Popen[bytes]":
    environment = {
        # what torchrun tells its own processes is not for ours
        **{
            name: value for name, value in merging(os.environ).items() if not name.startswith("TORCHELASTIC_")
        },
        **place.variables(),
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "towtank.executor.launching.rank", str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=2,  # the standard output belongs to the result
        process_group=0,  # Ctrl-C is for us: we end them
    )


def _watch(ranks: Sequence[_Rank], folder: Path, patience_s: float = PATIENCE_S) -> None:
    """Wait until all ranks have ended well; raise what ended one of them otherwise."""
    watch = Watch([alive_file(folder, one.number) for one in ranks], patience_s)
    while True:
        codes = [one.process.poll() for one in ranks]
        if any(codes):  # neither running (None) nor well (0)
            _wait_until(lambda: all(one.process.poll() is not None for one in ranks), _GRACE_S)
            raise _cause(ranks, folder, [rank for rank, code in enumerate(codes) if code])
        if all(code == 0 for code in codes):
            return
        silent = [rank for rank in watch.lost() if codes[rank] is None]
        if silent:
            raise LostRankError(_hangs(silent, len(ranks), patience_s))
        time.sleep(_POLL_S)


def _wait_until(done: Callable[[], bool], patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while not done() and time.monotonic() < end:
        time.sleep(_POLL_S)


def _cause(ranks: Sequence[_Rank], folder: Path, first: Sequence[int]) -> Exception:
    """Why the run ended: a rank that vanished, else what the first ones said; those that only lost it come last."""
    for rank in first:
        if not failure_file(folder, rank).exists():
            return LostRankError(_vanished(rank, ranks[rank].process.returncode, len(ranks)))
    said = [_read(failure_file(folder, rank)) for rank in (*first, *range(len(ranks)))
            if failure_file(folder, rank).exists()]  # fmt: skip
    own = [error for error in said if not isinstance(error, LostRankError)]
    vanished = [
        one.number
        for one in ranks
        if one.process.returncode not in (None, 0) and not failure_file(folder, one.number).exists()
    ]
    if not own and vanished:
        return LostRankError(_vanished(vanished[0], ranks[vanished[0]].process.returncode, len(ranks)))
    return (own or said)[0]


def _hangs(silent: Sequence[int], size: int, patience_s: float) -> str:
    names = f"rank {silent[0]} of {size} has" if len(silent) == 1 else f"{len(silent)} ranks of {size} have"
    return (
        f"{names} given no sign of life for {patience_s:.0f} s: stopped, or the machine is out of memory; all "
        f"{size} were ended"
    )


def _vanished(rank: int, code: int | None, size: int) -> str:
    how = f"exit code {code}"
    if code is not None and code < 0:
        how = f"signal {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (killed, or out of memory)"
    others = f"; the other {size - 1} were stopped" if size > 1 else ""
    return f"rank {rank} of {size} ended by {how}{others}"


def _read(path: Path) -> Exception:
    """The exception that a rank left."""
    found: Any = pickle.loads(path.read_bytes())
    assert isinstance(found, Exception)
    return found


def _read_outcome(folder: Path) -> RunOutcome:
    path = folder / OUTCOME
    if not path.exists():
        raise LostRankError("all ranks ended, but rank 0 left no result")
    found: RunOutcome = pickle.loads(path.read_bytes())
    return found


def portable(error: BaseException, rank: int) -> Exception:
    """An exception that another process can read: ours as they are, others as text."""
    if isinstance(error, ExecutorError | RunError):
        return error
    return RunError(f"rank {rank}: {type(error).__name__}: {error}")
