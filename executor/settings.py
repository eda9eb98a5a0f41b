"""What a run is: model, plan, stack, and how it trains. Plain data, checked by `towtank.executor.supported`."""

from dataclasses import dataclass
from typing import Literal

from towtank.simulator.lowering.sizes import Sizes, local_sizes
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.records import Stack

Dtype = Literal["float64", "fp32", "bf16", "fp16"]
"""Number format of weights in use and of activations. float64 is for proofs of equality."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One training run. The plan must have passed its rules, and the settings those of `supported`."""

    model: ModelSpec
    plan: Plan
    stack: Stack
    dtype: Dtype
    seed: int = 0
    """Of initial weights, order of data and dropout."""
    steps: int = 10
    learning_rate: float = 3e-4
    weight_decay: float = 0.1
    """Of matrices; biases and norms do not decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    gradient_clip: float | None = 1.0
    """Largest norm of all gradients together; None: as they are."""
    dropout: float = 0.0
    """Probability of dropping an element before a residual addition, and of the embedding."""
    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def sizes(self) -> Sizes:
        """Sizes of one device's part, and the overlap switches in force."""
        return local_sizes(self.model, self.plan, self.stack)

    @property
    def gradient_dtype(self) -> Dtype:
        """Number format in which gradients are kept and reduced; master weights and optimizer states are in it
        too."""
        return "float64" if self.dtype == "float64" else "fp32"


def default_dtype(plan: Plan) -> Dtype:
    """Number format that the plan's precision asks for.

    Raises:
        KeyError: a precision that the executor does not run.
    """
    formats: dict[str, Dtype] = {"fp32": "fp32", "tf32": "fp32", "bf16": "bf16", "fp16": "fp16"}
    return formats[plan.precision]
