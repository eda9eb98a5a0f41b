"""How far a run is from that of one process."""

from dataclasses import dataclass

import numpy as np

from towtank.executor.equality.training import Outcome


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

    def within(self, loss: float, gradient_norm: float, weights: float) -> bool:
        """Whether all of it is small enough."""
        return (
            not self.fault
            and self.loss <= loss
            and self.gradient_norm <= gradient_norm
            and self.weights <= weights
            and self.copies == 0.0
        )


def failed(fault: str) -> Difference:
    """Of a run that did not end."""
    inf = float("inf")
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
        return float("inf")  # an element that no device holds
    largest = max(float(np.abs(other.weights[name]).max()), least)
    return float(np.abs(one.weights[name] - other.weights[name]).max()) / largest
