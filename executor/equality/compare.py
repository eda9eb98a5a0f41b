"""How far a run is from that of one process."""

from dataclasses import dataclass
from math import inf

import numpy as np

from towtank.executor.equality.training import Outcome
from towtank.executor.settings import Dtype


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest relative differences that rounding explains; a sum left out changes losses by 7e-3."""

    loss: float
    gradient_norm: float
    weights: float
    """Not judged in few bits: where a gradient is nearly 0, AdamW steps by the sign of its rounding."""


TOLERANCES: dict[Dtype, Tolerance] = {
    "float64": Tolerance(1e-9, 1e-9, 1e-9),
    # measured: 1e-7 and 3e-7
    "fp32": Tolerance(1e-5, 1e-5, inf),
    # ten and five times what was measured (2e-4 and 1e-2): it has 8 bits, and sums in another order differ by
    # up to 2^-9 each time
    "bf16": Tolerance(2e-3, 5e-2, inf),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Largest relative differences over all steps and weights."""

    loss: float
    gradient_norm: float
    weights: float
    """Of a tensor: largest difference of an element over its largest element, or over the learning rate where that is
    larger (biases of keys have no gradient but rounding, and stay at about 0)."""
    copies: float
    """Largest difference between devices' copies of an element; they must be the same to the bit."""
    fault: str = ""
    """What went wrong where nothing can be compared."""

    def within(self, most: Tolerance) -> bool:
        """Whether all of it is small enough, and copies are the same."""
        return (
            not self.fault
            and self.loss <= most.loss
            and self.gradient_norm <= most.gradient_norm
            and self.weights <= most.weights
            and self.copies == 0.0
        )


def failed(fault: str) -> Difference:
    """Of a run that did not end."""
    return Difference(inf, inf, inf, inf, fault)


def difference(one: Outcome, other: Outcome, learning_rate: float) -> Difference:
    """Difference of a run `one` from its reference `other`."""
    if sorted(one.weights) != sorted(other.weights):
        return failed(f"weights of different names: {sorted(set(one.weights) ^ set(other.weights))}")
    return Difference(
        _relative(one.losses, other.losses),
        _relative(one.gradient_norms, other.gradient_norms),
        max(_of_tensor(one, other, name, learning_rate) for name in other.weights),
        one.copies_differ,
    )


def _relative(values: list[float], reference: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(values, reference, strict=True))


def _of_tensor(one: Outcome, other: Outcome, name: str, least: float) -> float:
    if bool(np.isnan(one.weights[name]).any()):
        return inf  # an element that no device holds
    largest = max(float(np.abs(other.weights[name]).max()), least)
    return float(np.abs(one.weights[name] - other.weights[name]).max()) / largest
