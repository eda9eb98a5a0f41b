"""One rank of a run: meets the others, trains, and tells rank 0's result or what went wrong."""

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

from towtank.executor.errors import ExecutorError, LaunchError, LostRankError, RunError
from towtank.executor.launching.alive import alive_file, show_life
from towtank.executor.launching.environment import ALONE, Process, gpu_of, joined
from towtank.executor.launching.heartbeat import Heartbeat
from towtank.executor.launching.local import OUTCOME, REQUEST, failure_file, portable, threads_of
from towtank.executor.launching.request import RunOutcome, RunRequest
from towtank.executor.launching.signals import die_with_parent, let_terminations_in, termination
from towtank.executor.measured.host_memory import keep_freed_memory

_PATIENCE: Final = timedelta(minutes=30)
"""Of a collective; ranks that vanish are found earlier, by whoever started them or by the heartbeat."""
_GONE: Final = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "timed out",
    "nccl",
)
"""Words of the messages with which libraries tell that a peer is gone."""


def run_rank(request: RunRequest, place: Process, alive: Path | None = None) -> RunOutcome | None:
    """Run a request as one of its ranks; rank 0 returns the outcome.

    Args:
        request: what to run.
        place: among the ranks.
        alive: file to touch for whoever watches this rank; None: the ranks look after each other.

    Raises:
        ExecutorError: the run cannot be done as asked.
        RunError: it began and failed.
    """
    import torch

    from towtank.executor.launching.loop import train_request

    threads = threads_of(request, place.local_world_size)
    torch.set_num_threads(threads)
    keep_freed_memory()
    device = torch.device(request.settings.device)
    if device.type == "cuda":
        device = _gpu(place)
        if request.records or request.trace is not None:
            os.environ.setdefault("TORCH_NCCL_ENABLE_TIMING", "1")
    with _together(place, device):
        if alive is not None:
            show_life(alive)
        return train_request(request, place, device, threads)


def _gpu(place: Process) -> Any:
    """The GPU of a rank, which is the current device from now on."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = gpu_of(place, count)
    if number is None:
        raise LaunchError(
            f"rank {place.rank} is one of {place.local_world_size} on its node, but torch sees {count} GPUs there; "
            f"start one process for each GPU, or take --device cpu"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


@contextmanager
def _together(place: Process, device: Any) -> Iterator[None]:
    """The process group of all ranks, with a heartbeat where another launcher started them."""
    import torch.distributed as dist
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if place.world_size == 1:
        yield
        return
    os.environ.update(place.variables())
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(iter(rendezvous("env://", timeout=_PATIENCE)))
    dist.init_process_group(
        backend,
        store=PrefixStore("towtank", store),
        rank=rank,
        world_size=size,
        timeout=_PATIENCE,
        device_id=device if device.type == "cuda" else None,
    )
    heart = None
    if place.launcher != "towtank":
        heart = Heartbeat(PrefixStore("heart", store.clone()), rank, size)
        heart.start()
    try:
        yield
        dist.barrier()
        if heart is not None:
            heart.part()
    except RuntimeError as error:
        if isinstance(error, RunError) or not _says_gone(error):
            raise
        line = str(error).strip().partition("\n")[0][:160]
        raise LostRankError(f"rank {rank}: another rank is gone ({line})") from error
    finally:
        if heart is not None:
            heart.stop()
    dist.destroy_process_group()


def _says_gone(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(words in text for words in _GONE)


def main(folder: Path) -> int:
    """A rank that `local.run_processes` has started; returns its exit code."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # outside of the training, where it is noted; SIG_IGN would throw away the one that has come already
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    place = joined(os.environ, int(os.environ["WORLD_SIZE"])) or ALONE
    try:
        with termination():
            let_terminations_in()
            request: RunRequest = pickle.loads((folder / REQUEST).read_bytes())
            outcome = run_rank(request, place, alive_file(folder, place.rank))
    except Exception as error:
        _leave_failure(folder, place.rank, error)
        return error.code if isinstance(error, RunError) else 1
    if outcome is not None:
        _write(folder / OUTCOME, outcome)
    return 0


def _leave_failure(folder: Path, rank: int, error: Exception) -> None:
    if not isinstance(error, ExecutorError | RunError):
        traceback.print_exception(error)
    _write(failure_file(folder, rank), portable(error, rank))


def _write(path: Path, content: object) -> None:
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(content))
    partial.rename(path)


def leave(code: int) -> NoReturn:
    """End this process, whose work is done and written, without tearing down the interpreter.

    A thread of gloo that lets go of a tensor while the interpreter is torn down wants its lock and aborts the process
    (pytorch pull request 179291), so that a run that ended well would be reported as a lost rank.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(Path(sys.argv[1])))
