"""Intervals between checkpoints that nothing but a failure can stop, passed in one event."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive intervals of the same length, each some training and a checkpoint that stops it."""

    intervals: int
    training_s: float
    """Training of one interval."""
    saving_s: float

    @property
    def seconds(self) -> float:
        """Time of the whole block."""
        return self.intervals * (self.training_s + self.saving_s)

    def after(self, elapsed_s: float) -> tuple[int, float, float]:
        """Whole intervals after so many seconds, and the training and saving of the one that is under way."""
        one_s = self.training_s + self.saving_s
        whole = min(int(elapsed_s / one_s), self.intervals)
        rest_s = max(0.0, elapsed_s - whole * one_s) if whole < self.intervals else 0.0
        return whole, min(rest_s, self.training_s), max(0.0, rest_s - self.training_s)


def intervals_before(left_s: float, training_s: float, saving_s: float) -> int:
    """Intervals whose training begins and ends within so many seconds; one that just about does is not counted."""
    if left_s <= training_s:
        return 0
    return int((left_s - training_s) / (training_s + saving_s) * (1 - 1e-9)) + 1
