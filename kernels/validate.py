"""Whether a kernel is right on this device: against float64, on odd sizes, strides and poisoned memory.

Nothing here knows a kernel by name: what each must satisfy follows from its reference.
"""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towtank.kernels.errors import KernelError
from towtank.kernels.records import Backend, Kernel, Launch, Sizes, Tile
from towtank.kernels.tolerances import smallest, tolerance
from towtank.kernels.trials import Poisoned, Trial, changed, trials

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

    Every case is tried with inputs as they come, with inputs that lie in memory in three other ways, and with a NaN
    and an infinity in each input in turn, which must reach those outputs that they reach in the reference. Outputs
    are allocated full of NaN (integers: of their least value), so what is not written is seen, and with more of it
    around them, so that what is written too much is; inputs and what lies around them must be left as they were, but
    for inputs that the kernel updates.

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
    for number, case in enumerate((*kernel.cases, *backend.cases(tile, dtype))):
        sizes = {**kernel.options, **case}
        for trial in trials(kernel, sizes, dtype, device, seed + number, number):
            checks += 1
            ratio, complaint = _try(kernel, backend, launch, trial, sizes, tile)
            worst = max(worst, ratio)
            if complaint:
                faults.append(Fault(f"{_text(sizes)}, {trial.name}", complaint))
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
    kernel: Kernel, backend: Backend, launch: Launch, trial: Trial, sizes: Sizes, tile: Tile
) -> tuple[float, str | None]:
    """(relative error over its tolerance, what is wrong) of one call."""
    import torch

    inputs = trial.inputs
    expected = kernel.reference([_widened(each) for each in inputs], sizes)[: backend.outputs]
    before, wholes = [each.clone() for each in inputs], [each.clone() for each in trial.wholes]
    allocate = poisoned(inputs[0].device.type)
    try:
        with warnings.catch_warnings():
            # the interpreter of Triton computes with numpy, which warns of every NaN that it is given
            warnings.simplefilter("ignore", RuntimeWarning)
            found = launch(inputs, sizes, tile, allocate)
        if inputs[0].device.type != "cpu":
            torch.cuda.synchronize()  # a GPU tells of an access out of bounds when it is waited for
    except Exception as error:  # whatever a backend raises is a fault of this variant, not of the others
        return float("inf"), f"{type(error).__name__}: {error}"
    found = (*(inputs[place] for place in kernel.in_place), *found[len(kernel.in_place) :])
    if wrong := changed(kernel, trial, before, wholes):
        return float("inf"), f"changes its inputs {wrong}"
    if allocate.overrun():
        return float("inf"), "writes outside of its outputs"
    terms = kernel.terms([_widened(each) for each in before], sizes)
    # only a NaN that went in may spread: one without a cause is an element that was not written
    spreads = trial.touched in kernel.spreads
    return compare(
        found, expected, kernel.summed(sizes), terms=terms, spreads=spreads, by_element=kernel.by_element
    )


def poisoned(device: str) -> Poisoned:
    """An allocator whose tensors are full of NaN, or of the least integer."""
    return Poisoned(device)


def compare(
    found: "Tensors",
    expected: "Tensors",
    summed: int,
    *,
    terms: Sequence[float] = (),
    spreads: bool = False,
    by_element: Collection[int] = (),
) -> tuple[float, str | None]:
    """(largest relative error over its tolerance, what is wrong) of outputs against a float64 reference.

    The relative error is the largest absolute difference over the scale of the output (`tolerances.yaml`), among
    elements that are finite in both; of outputs `by_element` each element is its own scale. Elements that are not
    finite must be the same ones, or at least those of the reference where a NaN `spreads`, and infinities must not
    have the other sign.
    """
    if len(found) != len(expected):
        return float("inf"), f"{len(found)} outputs, but the reference has {len(expected)}"
    worst, complaint = 0.0, None
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        ratio, fault = 0.0, _unlike(one, other, spreads)
        if fault:
            ratio = float("inf")
        elif one.dtype.is_floating_point:
            term = terms[place] if place < len(terms) else 0.0
            ratio, fault = _error(one, other, summed, None if place in by_element else term)
        worst = max(worst, ratio)
        if fault and complaint is None:
            complaint = f"output {place}: {fault}"
    return worst, complaint


def _unlike(found: "torch.Tensor", expected: "torch.Tensor", spreads: bool) -> str | None:
    """What differs but for rounding: shapes, integers, and which elements are finite."""
    if found.shape != expected.shape:
        return f"shape {tuple(found.shape)}, but the reference has {tuple(expected.shape)}"
    if not found.dtype.is_floating_point:
        wrong = int((found.long() != expected.long()).sum())
        return f"{wrong} of {found.numel()} integers differ" if wrong else None
    one = found.double()
    finite = one.isfinite()
    wrong = int(((finite & ~expected.isfinite()) if spreads else (finite ^ expected.isfinite())).sum())
    if wrong:
        return f"{wrong} of {found.numel()} elements are finite in one of both only"
    other_sign = int((one.isinf() & expected.isinf() & (one != expected)).sum())
    return f"{other_sign} of {found.numel()} infinities have the other sign" if other_sign else None


def _error(
    found: "torch.Tensor", expected: "torch.Tensor", summed: int, term: float | None
) -> tuple[float, str | None]:
    """The error over its tolerance, and in words if it is too large; without `term` each element is its own scale."""
    one = found.double()
    finite = one.isfinite() & expected.isfinite()
    if not bool(finite.any()):
        return 0.0, None
    dtype = str(found.dtype).removeprefix("torch.")
    limit, differences, sizes = (
        tolerance(dtype, summed),
        (one - expected)[finite].abs(),
        expected[finite].abs(),
    )
    if term is None:
        ratio = float((differences / (limit * sizes + smallest(dtype))).max())
        return ratio, f"an element is off by {ratio:.3g} times what is allowed" if ratio > 1 else None
    error = float(differences.max()) / (max(float(sizes.max()), term) or 1.0)
    return error / limit, f"relative error {error:.2g}, more than {limit:.2g}" if error > limit else None


def _widened(tensor: "torch.Tensor") -> "torch.Tensor":
    """The very numbers that the kernel gets, in float64."""
    return tensor.double() if tensor.dtype.is_floating_point else tensor


def _text(sizes: Sizes) -> str:
    return " ".join(f"{name}={value}" for name, value in sizes.items())
