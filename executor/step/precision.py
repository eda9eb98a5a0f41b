"""Mixed precision: the loss scale of fp16.

Weights in use, activations and messages of passes are bf16 or fp16; master weights, sums of gradients and moments are
fp32 (float64 under float64). bf16 has the range of fp32 and needs no more. Gradients in fp16 would vanish below 6e-8,
so the loss is scaled up before the backward pass and the sums are scaled down again; a scale that was too high shows
as an infinite norm, and the step leaves the weights alone (Micikevicius et al., arXiv 1710.03740, section 3.2).
"""

import math
from dataclasses import dataclass
from typing import Final

FIRST_SCALE: Final = 65536.0
GROWTH: Final = 2.0
BACKOFF: Final = 0.5
PATIENCE: Final = 2000
"""Steps without overflow before the scale grows: the defaults of torch.amp.GradScaler."""
LEAST_SCALE: Final = 1.0


@dataclass(slots=True)
class LossScale:
    """Factor of the loss; constant 1 unless the run is in fp16."""

    factor: float
    changes: bool
    """Whether overflows lower it and their absence raises it."""
    steps_since_overflow: int = 0

    @classmethod
    def of(cls, dtype: str) -> "LossScale":
        """The scale with which a run in a number format begins."""
        return cls(FIRST_SCALE, True) if dtype == "fp16" else cls(1.0, False)

    def follow(self, norm: float) -> bool:
        """Adjust the scale to the norm of the scaled gradients; whether the weights may be updated."""
        if not self.changes:
            return True
        if not math.isfinite(norm):
            self.factor = max(LEAST_SCALE, self.factor * BACKOFF)
            self.steps_since_overflow = 0
            return False
        self.steps_since_overflow += 1
        if self.steps_since_overflow == PATIENCE:
            self.factor *= GROWTH
            self.steps_since_overflow = 0
        return True
