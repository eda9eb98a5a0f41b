"""What a kernel is: one name, a reference, a cost, and launchers by backend.

A backward pass is a kernel of its own, whose reference is autograd of the forward reference.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

BackendName = Literal["library", "triton", "c"]
Sizes = Mapping[str, int]
"""Sizes and switches of one call by name, such as m, n, k; a switch is 0 or 1."""
Tile = Mapping[str, int]
"""Tile sizes and launch settings of one variant by name; empty where a backend has no choice."""


DTYPE_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "int64": 8, "int32": 4,
}  # fmt: skip
"""Bytes of one element, by PyTorch's name of the dtype."""


class Allocate(Protocol):
    """Makes an output tensor. Validation hands in one whose elements are poisoned, so that a launcher that leaves an
    element unwritten is found out."""

    def __call__(self, *shape: int, dtype: "torch.dtype") -> "torch.Tensor":
        """A new tensor on the device of the call."""


class Launch(Protocol):
    """Runs a kernel on tensors of one device."""

    def __call__(
        self, inputs: "Sequence[torch.Tensor]", sizes: Sizes, tile: Tile, allocate: Allocate
    ) -> "tuple[torch.Tensor, ...]":
        """Outputs, in the order of the reference."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call must do at least."""

    flop: float
    bytes: float
    """Every input read once and every output written once."""


def no_tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    """The one variant of a backend without a choice."""
    return ({},)


def no_cases(tile: Tile, dtype: str) -> tuple[Sizes, ...]:
    """A backend whose tiles need no sizes of their own to be tried."""
    return ()


def no_terms(inputs: "Sequence[torch.Tensor]", sizes: Sizes) -> tuple[float, ...]:
    """Nothing cancels."""
    return ()


def no_fault(sizes: Sizes) -> str | None:
    """Sizes of a kernel that takes any."""
    return None


def _one(sizes: Sizes) -> int:
    return 1


@dataclass(frozen=True, slots=True)
class Backend:
    """One implementation of a kernel."""

    name: BackendName
    load: Callable[[], Launch]
    """Imports what the launcher needs and hands it over."""
    dtypes: tuple[str, ...]
    missing: Callable[[str], str | None]
    """Why it cannot run on a device type (`cpu`, `cuda`); None where it can."""
    tiles: Callable[[Sizes, str], tuple[Tile, ...]] = no_tiles
    """Variants for sizes and a dtype, the default first."""
    cases: Callable[[Tile, str], tuple[Sizes, ...]] = no_cases
    """Sizes that validation tries of a tile in a dtype beside the kernel's: those at which the tile's own loops go
    round several times, and have remainders."""
    outputs: int | None = None
    """How many of the reference's outputs it returns, where it keeps the last ones to itself."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of a training step."""

    name: str
    dimensions: tuple[str, ...]
    """Names of the sizes, in the order of `--shape 4096x4096x4096`."""
    backends: tuple[Backend, ...]
    inputs: "Callable[[Sizes, torch.dtype, torch.Generator], tuple[torch.Tensor, ...]]"
    """Fresh random inputs on the generator's device, of the sizes."""
    reference: "Callable[[Sequence[torch.Tensor], Sizes], tuple[torch.Tensor, ...]]"
    """The same in plain PyTorch operations, which work in any dtype; validation calls it in float64."""
    cost: Callable[[Sizes, str], Cost]
    """FLOP and bytes of one call in a dtype."""
    cases: tuple[Sizes, ...]
    """Sizes that validation tries: usual, odd and degenerate ones."""
    options: Mapping[str, int] = field(default_factory=dict)
    """Sizes that may be left out, with their values then."""
    fault: Callable[[Sizes], str | None] = no_fault
    """Why there are no inputs of such sizes; None where there are."""
    summed: Callable[[Sizes], int] = _one
    """Elements that one output is a sum of: rounding errors grow with them."""
    in_place: tuple[int, ...] = ()
    """Inputs that the kernel updates; they are its first outputs."""
    terms: "Callable[[Sequence[torch.Tensor], Sizes], tuple[float, ...]]" = no_terms
    """By output, the largest absolute value of the terms that it is a difference of; 0 where nothing cancels."""
    aside: tuple[int, ...] = ()
    """Inputs in which no NaN is tried: settings, what is only written, and what a forward pass kept."""
    infinities: tuple[int, ...] | None = None
    """Inputs from which an infinity must reach outputs as in the reference; None: all. Not those where -inf marks
    what takes no part."""
    spreads: tuple[int, ...] = ()
    """Inputs from which a NaN may reach more outputs than in the reference: blocks multiply it by masked zeros."""
    by_element: tuple[int, ...] = ()
    """Outputs whose every element must be right by itself, not only beside the largest one."""

    def infinite(self, inputs: Collection[int]) -> Collection[int]:
        """Those of some inputs from which an infinity must reach outputs."""
        return inputs if self.infinities is None else self.infinities

    def backend(self, name: str) -> Backend:
        """A backend by name.

        Raises:
            KeyError: the kernel has none of that name.
        """
        for each in self.backends:
            if each.name == name:
                return each
        raise KeyError(name)
