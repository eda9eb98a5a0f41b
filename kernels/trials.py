"""What validation hands to a kernel: inputs that lie in memory in several ways, some with a NaN or an infinity in
them, and outputs that are poisoned, with room around them in which a write out of bounds is seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from towtank.kernels.records import Allocate, Kernel, Sizes

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

SMALL = 1024
"""Elements of all inputs up to which each of them gets a NaN."""
GUARD = 4096
"""Elements on each side of an output: as many as a block that is written without its mask, for most kernels."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One call that validation makes."""

    name: str
    """Such as `strided inputs`."""
    inputs: "tuple[torch.Tensor, ...]"
    wholes: "tuple[torch.Tensor, ...]"
    """The memory that each input is a part of; the input itself where it is no part."""
    touched: int | None = None
    """Input with a NaN or an infinity in it."""


def trials(
    kernel: Kernel, sizes: Sizes, dtype: str, device: str, seed: int, number: int = 0
) -> Iterator[Trial]:
    """Fresh random inputs as they come, in three other layouts, and with a NaN and an infinity in one of them.

    Small cases try every input; of large ones the `number` of the case tells which.
    """
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    fresh = partial(kernel.inputs, sizes, getattr(torch, dtype), generator)
    inputs = fresh()
    yield Trial("inputs as they come", inputs, inputs)
    for name, layout in (
        ("strided inputs", strided),
        ("slices of wider inputs", sliced),
        ("inputs by columns", by_columns),
    ):
        pairs = [layout(each, place) for place, each in enumerate(fresh())]
        yield Trial(name, tuple(part for part, _ in pairs), tuple(whole for _, whole in pairs))
    places = [
        place
        for place, each in enumerate(inputs)
        if place not in kernel.aside and each.numel() and each.dtype.is_floating_point
    ]
    few = sum(each.numel() for each in inputs) <= SMALL
    for place in places if few else places[number % max(1, len(places)) :][:1]:
        values = {"a NaN": float("nan"), "an infinity": float("inf")}
        for name in values if place in kernel.infinite(places) else ["a NaN"]:
            inputs = fresh()
            _touch(inputs[place], values[name], number + place)
            yield Trial(f"{name} in input {place}", inputs, inputs, place)


def _touch(tensor: "torch.Tensor", value: float, number: int) -> None:
    """Put a value into the middle, the last or the first element."""
    elements = tensor.numel()
    tensor.view(-1)[(elements // 2, elements - 1, 0)[number % 3]] = value


def poison(shape: Sequence[int], dtype: "torch.dtype", device: "torch.device | str") -> "torch.Tensor":
    """A tensor full of NaN, or of the least integer."""
    import torch

    value = float("nan") if dtype.is_floating_point else torch.iinfo(dtype).min
    if dtype.itemsize == 1 and dtype.is_floating_point:  # no fill in 8 bits on every device
        return torch.full(tuple(shape), value, dtype=torch.float32, device=device).to(dtype)
    return torch.full(tuple(shape), value, dtype=dtype, device=device)


def _gaps(shape: Sequence[int], like: "torch.Tensor") -> "torch.Tensor":
    """What lies around an input: poison, but integers are 0, for they may be used as addresses."""
    if like.dtype.is_floating_point:
        return poison(shape, like.dtype, like.device)
    return like.new_zeros(tuple(shape))


def strided(tensor: "torch.Tensor", place: int = 0) -> "tuple[torch.Tensor, torch.Tensor]":
    """The same numbers with gaps between them: every second element of each row of a larger tensor."""
    if tensor.dim() == 0:
        return tensor, tensor
    whole = _gaps((*tensor.shape[:-1], 2 * tensor.shape[-1]), tensor)
    part = whole[..., ::2]
    part.copy_(tensor)
    return part, whole


def sliced(tensor: "torch.Tensor", place: int = 0) -> "tuple[torch.Tensor, torch.Tensor]":
    """The same numbers as columns of a wider tensor, of another width for each input: rows are dense, but apart."""
    if tensor.dim() == 0:
        return tensor, tensor
    columns = tensor.shape[-1]
    whole = _gaps((*tensor.shape[:-1], columns + 3 + place), tensor)
    part = whole[..., 2 : 2 + columns]
    part.copy_(tensor)
    return part, whole


def by_columns(tensor: "torch.Tensor", place: int = 0) -> "tuple[torch.Tensor, torch.Tensor]":
    """The same numbers with the first dimension dense in memory instead of the last."""
    if tensor.dim() < 2:
        return tensor, tensor
    whole = tensor.transpose(0, -1).contiguous()
    return whole.transpose(0, -1), whole


class Poisoned(Allocate):
    """An allocator whose tensors are full of poison, and lie in the middle of more of it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._wholes: list[torch.Tensor] = []

    def __call__(self, *shape: int, dtype: "torch.dtype") -> "torch.Tensor":
        """A new tensor."""
        number = prod(shape)
        whole = poison((number + 2 * GUARD,), dtype, self._device)
        self._wholes.append(whole)
        return whole[GUARD : GUARD + number].view(shape)

    def overrun(self) -> bool:
        """Whether something was written beside a tensor."""
        import torch

        def intact(part: "torch.Tensor", whole: "torch.Tensor") -> bool:
            expected = poison((GUARD,), whole.dtype, self._device)
            return torch.equal(part.view(torch.uint8), expected.view(torch.uint8))

        return not all(
            intact(whole[:GUARD], whole) and intact(whole[-GUARD:], whole) for whole in self._wholes
        )


def changed(kernel: Kernel, trial: Trial, before: "Tensors", wholes: "Tensors") -> list[int]:
    """Inputs, by number, that should have been left alone and were not, and those with changes in the memory around
    them; compared as they are stored.

    Args:
        kernel: some of its inputs are updated in place.
        trial: after the call.
        before: copies of its inputs from before the call.
        wholes: the same of the memory that they are parts of.
    """
    return [place for place in range(len(before)) if not _left_alone(kernel, trial, before, wholes, place)]


def _left_alone(kernel: Kernel, trial: Trial, before: "Tensors", wholes: "Tensors", place: int) -> bool:
    import torch

    own, whole = trial.inputs[place], trial.wholes[place]
    if place not in kernel.in_place:
        return torch.equal(_stored(wholes[place]), _stored(whole))
    if whole is own:
        return True
    restored = whole.clone()  # with what was there before in the place of the update, all must be as it was
    restored.as_strided(own.shape, own.stride(), own.storage_offset()).copy_(before[place])
    return torch.equal(_stored(wholes[place]), _stored(restored))


def _stored(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    # a copy: one element with gaps around it counts as contiguous
    return tensor.new_empty(tensor.numel()).copy_(tensor.reshape(-1)).view(torch.uint8)
