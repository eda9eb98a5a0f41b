"""Collectives over groups of the mesh, noted by the recorder under the Program's names.

Blocking ones return their result. Asynchronous ones return what waits for them, and their result may be used after
that. A group of one never communicates. All arrays are cut along dimension 0, so that nothing is copied around them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from towtank.executor.distributed.mesh import Group
from towtank.executor.measured import recorder
from towtank.executor.measured.recorder import Waitable
from towtank.simulator.operations import Phase

# the names since PyTorch 2.13, which warns of the old ones
_GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_SCATTER = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
SUM = dist.ReduceOp.SUM
MAX = dist.ReduceOp.MAX


class _Done:
    """Nothing to wait for."""

    def wait(self) -> None:
        """Return at once."""


DONE: Waitable = _Done()


def all_reduce(tensor: torch.Tensor, group: Group, name: str, phase: Phase, op: Any = SUM) -> torch.Tensor:
    """Sum (or `op`) of `tensor` over the group, in place where it is contiguous. Returns the result."""
    if group.size == 1:
        return tensor
    with recorder.operation(name, f"all-reduce {group.name}", phase):
        tensor = tensor.contiguous()
        dist.all_reduce(tensor, op, group.process_group)
    return tensor


def start_all_reduce(
    tensor: torch.Tensor, group: Group, name: str, phase: Phase, kind: str | None = None
) -> Waitable:
    """Begin to sum a contiguous `tensor` over the group in place. `kind`: of the record, if not by the group."""
    if group.size == 1:
        return DONE
    start = partial(dist.all_reduce, tensor, SUM, group.process_group, async_op=True)
    return recorder.issue(name, kind or f"all-reduce {group.name}", phase, start)


def all_gather(tensor: torch.Tensor, group: Group, name: str, phase: Phase) -> torch.Tensor:
    """Parts of all members one after the other along dimension 0; all parts have one shape."""
    if group.size == 1:
        return tensor
    with recorder.operation(name, f"all-gather {group.name}", phase):
        whole = _times(tensor, group.size)
        _GATHER(whole, tensor.contiguous(), group.process_group)
    return whole


def start_all_gather(
    tensor: torch.Tensor, group: Group, name: str, phase: Phase, kind: str | None = None
) -> tuple[torch.Tensor, Waitable]:
    """Begin an all-gather; the array may be read after the wait."""
    if group.size == 1:
        return tensor, DONE
    whole = _times(tensor, group.size)

    def start() -> Any:
        return _GATHER(whole, tensor.contiguous(), group.process_group, async_op=True)

    return whole, recorder.issue(name, kind or f"all-gather {group.name}", phase, start)


def reduce_scatter(tensor: torch.Tensor, group: Group, name: str, phase: Phase) -> torch.Tensor:
    """This member's part, along dimension 0, of the sum over the group."""
    if group.size == 1:
        return tensor
    with recorder.operation(name, f"reduce-scatter {group.name}", phase):
        part = _part(tensor, group.size)
        _SCATTER(part, tensor.contiguous(), SUM, group.process_group)
    return part


def start_reduce_scatter(
    tensor: torch.Tensor, group: Group, name: str, phase: Phase, kind: str | None = None
) -> tuple[torch.Tensor, Waitable]:
    """Begin a reduce-scatter of a contiguous array; the part may be read after the wait."""
    if group.size == 1:
        return tensor, DONE
    part = _part(tensor, group.size)
    start = partial(_SCATTER, part, tensor, SUM, group.process_group, async_op=True)
    return part, recorder.issue(name, kind or f"reduce-scatter {group.name}", phase, start)


def all_to_all(
    tensor: torch.Tensor,
    group: Group,
    name: str,
    phase: Phase,
    sent: Sequence[int] | None = None,
    received: Sequence[int] | None = None,
) -> torch.Tensor:
    """Exchange rows with all members. `sent` and `received`: rows to and from each; None: equal parts."""
    if group.size == 1:
        return tensor
    rows = tensor.shape[0] if received is None else sum(received)
    outputs = None if received is None else list(received)
    inputs = None if sent is None else list(sent)
    with recorder.operation(name, f"all-to-all {group.name}", phase):
        whole = tensor.new_empty((rows, *tensor.shape[1:]))
        dist.all_to_all_single(whole, tensor.contiguous(), outputs, inputs, group=group.process_group)
    return whole


def _times(tensor: torch.Tensor, size: int) -> torch.Tensor:
    return tensor.new_empty((tensor.shape[0] * size, *tensor.shape[1:]))


def _part(tensor: torch.Tensor, size: int) -> torch.Tensor:
    return tensor.new_empty((tensor.shape[0] // size, *tensor.shape[1:]))
