"""Which backend an operation runs on: the fastest that has passed validation on the device at hand."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from towtank.kernels.cache import Question, best_tile
from towtank.kernels.errors import KernelError
from towtank.kernels.launch import empty, find, require
from towtank.kernels.records import Allocate, Backend, BackendName, Kernel, Launch, Sizes, Tile

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "matmul": ("matmul", "matmul_dgrad", "matmul_wgrad"),
    "grouped_matmul": ("grouped_matmul", "grouped_matmul_dgrad", "grouped_matmul_wgrad"),
    **{
        name: (name, f"{name}_backward")
        for name in (
            "attention", "rms_norm", "layer_norm", "swiglu", "gelu", "rotary", "moe_permute", "moe_unpermute",
        )
    },
    "attention_block": ("attention", "attention_backward"),
    "cross_entropy": ("cross_entropy",),
    "adamw": ("adamw",),
}  # fmt: skip
"""Kernels that each operation calls, forward and backward."""
_LIBRARY_FIRST = ("matmul", "attention")
"""Operations that a GPU's own libraries are better at; of the others they need several kernels."""

_TRIED = 3
"""Tiles of a backend that are validated until one passes."""


@dataclass(slots=True)
class _State:
    """What `using` has set; a process has one."""

    forced: BackendName | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """A kernel of a backend, ready to be called for a dtype on a device type."""

    kernel: Kernel
    backend: Backend
    dtype: str
    device: str
    launch: Launch
    allocate: Allocate
    tiles: dict[tuple[int, ...], Tile] = field(default_factory=dict)
    """Tiles by sizes."""

    def tile(self, sizes: Sizes) -> Tile:
        """The tile that was tuned for sizes if it is right here, else the default."""
        key = tuple(sizes.values())
        if key not in self.tiles:
            self.tiles[key] = self._chosen(sizes)
        return self.tiles[key]

    def _chosen(self, sizes: Sizes) -> Tile:
        tiles = self.backend.tiles(sizes, self.dtype)
        question = Question(self.kernel.name, self.backend.name, self.dtype, sizes, self.device)
        best = best_tile(question, tiles)
        return _right(self.kernel, self.backend, self.dtype, self.device, (best, *tiles))


_STATE = _State()
_CHOSEN: dict[tuple[str, torch.dtype, str, str | None], str] = {}
_READY: dict[tuple[str, str, torch.dtype, str], _Made] = {}


@contextmanager
def using(backend: BackendName) -> Iterator[None]:
    """Run operations on one backend only, which must be right for whatever is called; for the whole process."""
    before, _STATE.forced = _STATE.forced, backend
    try:
        yield
    finally:
        _STATE.forced = before


def backend_of(operation: str, dtype: torch.dtype, device: str) -> str:
    """Name of the backend that an operation runs on; validates its kernels if no process has yet.

    Args:
        operation: one of `OPERATIONS`.
        dtype: of its first input.
        device: its type, cpu or cuda.

    Raises:
        KernelError: no backend is right, or not the one that is asked for.
    """
    key = (operation, dtype, device, _STATE.forced)
    found = _CHOSEN.get(key)
    if found is None:
        found = _CHOSEN[key] = _choose(operation, dtype, device)
    return found


def prove(dtype: torch.dtype, device: str, operations: Sequence[str] = tuple(OPERATIONS)) -> dict[str, str]:
    """Validate what a model is going to call, and say on which backend each operation runs.

    Raises:
        KernelError: no backend is right for one of them.
    """
    return {operation: backend_of(operation, dtype, device) for operation in operations}


def run(operation: str, name: str, inputs: Sequence[torch.Tensor], sizes: Sizes) -> tuple[torch.Tensor, ...]:
    """One kernel of an operation on the backend that this runs on; `sizes` hold all options."""
    x = inputs[0]
    device = x.device.type
    key = (name, backend_of(operation, x.dtype, device), x.dtype, device)
    made = _READY.get(key)
    if made is None:
        made = _READY[key] = _make(*key)
    return made.launch(inputs, sizes, made.tile(sizes), made.allocate)


def apply(function: Any, *arguments: Any) -> Any:
    """Call a `torch.autograd.Function`, whose own method has no types."""
    return function.apply(*arguments)


def _choose(operation: str, dtype: torch.dtype, device: str) -> str:
    names: tuple[str, ...] = ("library",)
    if _STATE.forced is not None:
        names = (_STATE.forced,)
    elif device != "cpu" and operation not in _LIBRARY_FIRST:
        names = ("triton", "library")
    for name in names[:-1]:
        try:
            _require(operation, name, dtype, device)
        except KernelError:
            continue
        return name
    _require(operation, names[-1], dtype, device)
    return names[-1]


def _require(operation: str, backend: str, dtype: torch.dtype, device: str) -> None:
    """Make sure that the default variants of an operation's kernels are right.

    Raises:
        KernelError: one is not, or cannot run here.
    """
    for name in OPERATIONS[operation]:
        kernel, chosen = find(name, backend, device)
        text = str(dtype).removeprefix("torch.")
        if text not in chosen.dtypes:
            raise KernelError(f"{name} has no {backend} kernel in {text}; it has {', '.join(chosen.dtypes)}")
        _right(kernel, chosen, text, device, chosen.tiles({**kernel.options, **kernel.cases[0]}, text))


def _right(kernel: Kernel, backend: Backend, dtype: str, device: str, tiles: Sequence[Tile]) -> Tile:
    """The first of some tiles that is right here; few are tried.

    Raises:
        KernelError: none of those is.
    """
    *others, last = list(tiles)[:_TRIED]
    for tile in others:
        try:
            require(kernel, backend, dtype, tile, device)
        except KernelError:
            continue
        return tile
    require(kernel, backend, dtype, last, device)
    return last


def _make(name: str, backend: str, dtype: torch.dtype, device: str) -> _Made:
    kernel, chosen = find(name, backend, device)
    text = str(dtype).removeprefix("torch.")
    return _Made(kernel, chosen, text, device, chosen.load(), empty(device))
