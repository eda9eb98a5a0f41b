"""Checkpoints: one folder a step, whole or not there at all, readable under any plan.

A checkpoint is written into a folder of another name beside the others, which gets its name when every rank has
written and all is on disk. A run that is killed while it writes leaves the one before as it was. What is left over is
removed when the next one is written.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.executor.errors import CheckpointError

if TYPE_CHECKING:
    from towtank.executor.checkpoint.parts import Part

_COMPLETE = re.compile(r"step-\d{10}")
_BEFORE = ".before"
"""A checkpoint that another one of the same step is about to replace."""
_PARTIAL = ".partial"
_PROGRESS = "progress.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is, besides tensors."""

    step: int
    """Optimizer steps done, with those that were left out because of an overflow."""
    sequences: int
    """Sequences seen: the data goes on with this number."""
    updates: int
    """Steps that changed the weights."""
    seed: int
    data: str
    """Identity of the data."""
    model: str
    loss_scale: float = 1.0
    steps_since_overflow: int = 0


def latest(folder: Path) -> Path | None:
    """Newest complete checkpoint of a folder; None if there is none."""
    found = _complete(folder)
    return found[-1] if found else None


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _COMPLETE.fullmatch(path.name.removesuffix(_BEFORE))]
    whole = [path for path in found if (path / _PROGRESS).is_file() and (path / ".metadata").is_file()]
    return sorted(whole, key=lambda path: (path.name.removesuffix(_BEFORE), not path.name.endswith(_BEFORE)))


def save(folder: Path, progress: Progress, parts: "Sequence[Part]", *, keep: int = 2) -> Path:
    """Write a checkpoint, and keep the last `keep`. Every rank of the world calls this.

    Args:
        folder: of all checkpoints of the run, which all ranks reach.
        progress: the same on every rank.
        parts: what this rank holds; all ranks together hold every logical tensor.
        keep: complete checkpoints that stay, with this one.

    Raises:
        CheckpointError: a rank could not write; the checkpoints before are as they were.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    from towtank.executor.checkpoint.parts import SaveParts

    final = folder / f"step-{progress.step:010d}"
    partial = folder / f"{final.name}{_PARTIAL}"
    _first_rank(lambda: _begin(folder, partial))
    try:
        with _quiet():
            save(
                {},
                storage_writer=FileSystemWriter(partial),
                planner=SaveParts(parts),
                no_dist=not _distributed(),
            )
    except (CheckpointException, OSError) as error:
        raise CheckpointError(f"the checkpoint {final} could not be written: {_reason(error)}") from error
    _first_rank(lambda: _finish(partial, final, progress, keep))
    return final


def load(path: Path, parts: "Sequence[Part]") -> None:
    """Read a checkpoint into the tensors of `parts`. Every rank of the world calls this.

    Raises:
        CheckpointError: the checkpoint is not complete, damaged, or of another model.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    from towtank.executor.checkpoint.parts import LoadParts

    try:
        with _quiet():
            load(
                {},
                storage_reader=FileSystemReader(path),
                planner=LoadParts(parts),
                no_dist=not _distributed(),
            )
    except (CheckpointException, CheckpointError, OSError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {_reason(error)}") from error


def read_progress(path: Path) -> Progress:
    """Where training was when a checkpoint was written.

    Raises:
        CheckpointError: the path is no complete checkpoint.
    """
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path}: no such folder")
    try:
        content = json.loads((path / _PROGRESS).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {path} has no readable {_PROGRESS}: it was not written to its end; use an older one"
        ) from error
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise CheckpointError(
            f"checkpoint {path} is of another format than {_FORMAT}; use the version that wrote it"
        )
    names = {field.name for field in fields(Progress)}
    if set(content) != names:
        raise CheckpointError(f"checkpoint {path}: {_PROGRESS} must have exactly {', '.join(sorted(names))}")
    wrong = [f"{name} = {value!r}" for name, value in content.items() if not _is_right(name, value)]
    if wrong:
        raise CheckpointError(
            f"checkpoint {path}: {', '.join(wrong)} in {_PROGRESS} is damaged; use an older one"
        )
    return Progress(**content)


def _is_right(name: str, value: object) -> bool:
    """Whether a field of the progress can be what was written."""
    if name in ("data", "model"):
        return isinstance(value, str)
    if name == "loss_scale":
        return isinstance(value, float) and 0 < value < float("inf")
    return isinstance(value, int) and value >= 0


def _begin(folder: Path, partial: Path) -> None:
    """Make an empty folder to write into; what a killed run left is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"step-*{_PARTIAL}"):
        shutil.rmtree(old)
    partial.mkdir()


def _finish(partial: Path, final: Path, progress: Progress, keep: int) -> None:
    """Give a written folder its name, then remove the oldest ones."""
    with (partial / _PROGRESS).open("w") as file:
        json.dump({"format": _FORMAT, **asdict(progress)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(partial)
    before = final.with_name(final.name + _BEFORE)
    if final.exists():  # a run that was resumed came here once more
        shutil.rmtree(before, ignore_errors=True)
        final.rename(before)
    partial.rename(final)
    _sync(final.parent)
    shutil.rmtree(before, ignore_errors=True)
    for old in _complete(final.parent)[: -max(keep, 1)]:
        if old != final:
            shutil.rmtree(old)


def _sync(folder: Path) -> None:
    """Put the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _distributed() -> bool:
    import torch.distributed as dist

    return bool(dist.is_available() and dist.is_initialized())


def _first_rank(act: Any) -> None:
    """Do something on the first rank while the others wait; its failure is everyone's.

    Raises:
        CheckpointError: the first rank could not read or write the folder.
    """
    import torch.distributed as dist

    failure: list[str | None] = [None]
    if not _distributed() or dist.get_rank() == 0:
        try:
            act()
        except OSError as error:
            failure = [str(error)]
    if _distributed():
        dist.broadcast_object_list(failure, src=0)
    if failure[0] is not None:
        raise CheckpointError(f"the checkpoint could not be written: {failure[0]}")


def _reason(error: BaseException) -> str:
    """The first failure in words: torch wraps those of all ranks."""
    failures = getattr(error, "failures", None)
    if failures:
        rank, (first, _) = next(iter(failures.items()))
        return f"rank {rank}: {first}"
    return str(error) or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch says about saving without a process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.distributed\.checkpoint.*")
        yield
