"""Whether a kernel is right on this device: against float64, on odd sizes, strides and poisoned memory.

Nothing here knows a kernel by name: what each must satisfy follows from its reference.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from towtank.kernels.errors import KernelError
from towtank.kernels.records import Allocate, Backend, Kernel, Launch, Sizes, Tile
from towtank.kernels.tolerances import tolerance

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that a kernel got wrong."""

    case: str
    """What was tried, such as `m=17 n=1 k=33, strided inputs`."""
    text: str
    """What came out."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of validating one variant of a kernel on a device."""

    kernel: str
    backend: str
    dtype: str
    tile: Tile
    checks: int
    error: float
    """Largest relative error over its tolerance; 1 and less passes."""
    faults: tuple[Fault, ...]

    @property
    def passed(self) -> bool:
        """Whether every check was passed."""
        return not self.faults


def validate(
    kernel: Kernel, backend: Backend, dtype: str, tile: Tile, *, device: str = "cpu", seed: int = 0
) -> Verdict:
    """Try one variant on all cases of its kernel, with fresh random inputs drawn from `seed`.

    Every case is tried with inputs as they come, with inputs that lie strided in memory, and with a NaN and an
    infinity in the first input, which must reach those outputs that they reach in the reference. Outputs are
    allocated full of NaN (integers: of their least value), so what is not written is seen; inputs must be left as
    they were, but for those that the kernel updates.

    Raises:
        KernelError: an earlier kernel has left this process without its GPU.
    """
    faults: list[Fault] = []
    checks, worst = 0, 0.0
    if lost := _lost(device):
        raise KernelError(
            f"{kernel.name} by {backend.name} cannot be tried: a kernel before it has left this process without its "
            f"GPU ({lost}); see `towtank kernels list` for which, and start again with the others"
        )
    launch = backend.load()
    for number, case in enumerate((*kernel.cases, *backend.cases(tile))):
        sizes = {**kernel.options, **case}
        for name, inputs in _variants(kernel, sizes, dtype, device, seed + number):
            checks += 1
            ratio, complaint = _try(kernel, backend, launch, inputs, sizes, tile)
            worst = max(worst, ratio)
            if complaint:
                faults.append(Fault(f"{_text(sizes)}, {name}", complaint))
                if _lost(device):  # whatever is tried now fails
                    return Verdict(kernel.name, backend.name, dtype, tile, checks, worst, tuple(faults))
    return Verdict(kernel.name, backend.name, dtype, tile, checks, worst, tuple(faults))


def _lost(device: str) -> str | None:
    """What the driver says if an access out of bounds, or the like, has ended this process's use of the GPU."""
    if device == "cpu":
        return None
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return None


def _try(
    kernel: Kernel, backend: Backend, launch: Launch, inputs: "Tensors", sizes: Sizes, tile: Tile
) -> tuple[float, str | None]:
    """(relative error over its tolerance, what is wrong) of one call."""
    import torch

    expected = kernel.reference([_widened(each) for each in inputs], sizes)[: backend.outputs]
    before = [each.clone() for each in inputs]
    try:
        with warnings.catch_warnings():
            # the interpreter of Triton computes with numpy, which warns of every NaN that it is given
            warnings.simplefilter("ignore", RuntimeWarning)
            found = launch(inputs, sizes, tile, poisoned(inputs[0].device.type))
        if inputs[0].device.type != "cpu":
            torch.cuda.synchronize()  # a GPU tells of an access out of bounds when it is waited for
    except Exception as error:  # whatever a backend raises is a fault of this variant, not of the others
        return float("inf"), f"{type(error).__name__}: {error}"
    found = (*(inputs[place] for place in kernel.in_place), *found[len(kernel.in_place) :])
    if changed := _changed(kernel, before, inputs):
        return float("inf"), f"changes its inputs {changed}"
    wide = [_widened(each) for each in before]
    # only a NaN that went in may spread: one without a cause is an element that was not written
    spreads = kernel.spreads and not all(bool(each.isfinite().all()) for each in wide)
    return compare(found, expected, kernel.summed(sizes), terms=kernel.terms(wide, sizes), spreads=spreads)


def _changed(kernel: Kernel, before: "Tensors", after: "Tensors") -> list[int]:
    """Inputs that should have been left alone and were not, by number; compared as they are stored."""
    import torch

    return [
        place
        for place, (old, new) in enumerate(zip(before, after, strict=True))
        if place not in kernel.in_place and not torch.equal(_stored(old), _stored(new))
    ]


def _stored(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    # a copy: one element with gaps around it counts as contiguous
    return tensor.new_empty(tensor.numel()).copy_(tensor.reshape(-1)).view(torch.uint8)


def poisoned(device: str) -> Allocate:
    """An allocator whose tensors are full of NaN, or of the least integer."""
    import torch

    def allocate(*shape: int, dtype: "torch.dtype") -> "torch.Tensor":
        value = float("nan") if dtype.is_floating_point else torch.iinfo(dtype).min
        if dtype.itemsize == 1 and dtype.is_floating_point:  # no fill in 8 bits on every device
            return torch.full(shape, value, dtype=torch.float32, device=device).to(dtype)
        return torch.full(shape, value, dtype=dtype, device=device)

    return allocate


def compare(
    found: "Tensors",
    expected: "Tensors",
    summed: int,
    *,
    terms: Sequence[float] = (),
    spreads: bool = False,
) -> tuple[float, str | None]:
    """(largest relative error over its tolerance, what is wrong) of outputs against a float64 reference.

    The relative error is the largest absolute difference over the scale of the output (`tolerances.yaml`), among
    elements that are finite in both; elements that are not must be the same ones, or at least those of the
    reference where a NaN `spreads`.
    """
    if len(found) != len(expected):
        return float("inf"), f"{len(found)} outputs, but the reference has {len(expected)}"
    worst, complaint = 0.0, None
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        term = terms[place] if place < len(terms) else 0.0
        ratio, fault = _compare_one(one, other, summed, term, spreads)
        worst = max(worst, ratio)
        if fault and complaint is None:
            complaint = f"output {place}: {fault}"
    return worst, complaint


def _compare_one(
    found: "torch.Tensor", expected: "torch.Tensor", summed: int, term: float, spreads: bool
) -> tuple[float, str | None]:
    if found.shape != expected.shape:
        return float("inf"), f"shape {tuple(found.shape)}, but the reference has {tuple(expected.shape)}"
    if not found.dtype.is_floating_point:
        wrong = int((found.long() != expected.long()).sum())
        return (float("inf"), f"{wrong} of {found.numel()} integers differ") if wrong else (0.0, None)
    one = found.double()
    finite = one.isfinite()
    wrong = (
        int((finite & ~expected.isfinite()).sum()) if spreads else int((finite ^ expected.isfinite()).sum())
    )
    if wrong:
        return float("inf"), f"{wrong} of {found.numel()} elements are finite in one of both only"
    if not bool(finite.any()):
        return 0.0, None
    limit = tolerance(str(found.dtype).removeprefix("torch."), summed)
    scale = max(float(expected[finite].abs().max()), term) or 1.0
    error = float((one - expected)[finite].abs().max()) / scale
    return error / limit, f"relative error {error:.2g}, more than {limit:.2g}" if error > limit else None


def _widened(tensor: "torch.Tensor") -> "torch.Tensor":
    """The very numbers that the kernel gets, in float64."""
    return tensor.double() if tensor.dtype.is_floating_point else tensor


def _variants(
    kernel: Kernel, sizes: Sizes, dtype: str, device: str, seed: int
) -> "Iterator[tuple[str, tuple[torch.Tensor, ...]]]":
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    fresh = partial(kernel.inputs, sizes, getattr(torch, dtype), generator)
    yield "inputs as they come", fresh()
    yield "strided inputs", tuple(strided(each) for each in fresh())
    values = {"a NaN": float("nan"), "an infinity": float("inf")}
    for name in values if kernel.infinities else ["a NaN"]:
        inputs = fresh()
        first = inputs[0]
        if first.numel() and first.dtype.is_floating_point:
            first.view(-1)[first.numel() // 2] = values[name]
            yield f"{name} in the first input", inputs


def strided(tensor: "torch.Tensor") -> "torch.Tensor":
    """The same numbers with gaps between them: every second element of each row of a larger tensor."""
    if tensor.dim() == 0:
        return tensor
    wide = tensor.new_zeros((*tensor.shape[:-1], 2 * tensor.shape[-1]))
    part = wide[..., ::2]
    part.copy_(tensor)
    return part


def _text(sizes: Sizes) -> str:
    return " ".join(f"{name}={value}" for name, value in sizes.items())
