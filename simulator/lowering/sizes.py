"""Sizes of one device's part of a layer, from model, plan and stack."""

from dataclasses import dataclass
from functools import lru_cache

from towtank.kernels.counts import BYTES_PER_ELEMENT
from towtank.simulator.models.records import Attention, ModelSpec
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.records import Stack

NARROW_PRECISIONS = ("fp8", "mxfp8", "nvfp4")
"""Precisions of matrix multiplies only; everything else stays in bf16."""


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """What lowering needs to know, worked out once per step.

    Compared by identity: templates are cached by their sizes, and hashing every field of model, plan and stack
    each time would take longer than lowering.
    """

    model: ModelSpec
    plan: Plan
    stack: Stack
    sequence: int
    """Tokens of a whole sequence."""
    local_sequence: int
    tokens: int
    """Tokens that a device handles in one micro-batch."""
    norm_tokens: int
    """The same where sequence parallelism splits them over x."""
    hidden: int
    """Width of the hidden state on a device: split over y."""
    element_bytes: float
    """Bytes of an activation."""
    overlap: Overlap
    """Switches in force, none of them None."""
    vocab: int
    """Vocabulary with padding."""

    @property
    def sequence_split(self) -> bool:
        """Whether sequence parallelism is in force."""
        return self.plan.sequence_parallel and self.plan.tensor_x > 1

    @property
    def pipeline_keeps_gathered(self) -> bool:
        """Whether weights stay gathered, and gradients whole, over the micro-batches of a pipeline (ZeRO 3)."""
        return self.plan.pipeline > 1 and self.stack.communication.pipeline_keeps_gathered

    @property
    def regathers(self) -> bool:
        """Whether the backward pass gathers the weights again."""
        return self.stack.communication.regather_in_backward and not self.pipeline_keeps_gathered


def activation_precision(precision: str) -> str:
    """Precision of activations under a matrix-multiply precision."""
    return "bf16" if precision in NARROW_PRECISIONS else precision


def parameter_bytes(sizes: Sizes) -> float:
    """Bytes of one weight as it is gathered."""
    precision = sizes.stack.communication.parameter_precision
    return sizes.element_bytes if precision == "working" else BYTES_PER_ELEMENT[precision]


def resolve_overlap(plan: Plan, stack: Stack) -> Overlap:
    """Switches of the plan, else what the stack does by itself."""
    impossible = () if plan.passes_meet else ("expert",)

    def choose(name: str) -> bool:
        wish: bool | None = getattr(plan.overlap, name)
        default = name in stack.communication.overlaps and name not in impossible
        return default if wish is None else wish

    return Overlap(**{name: choose(name) for name in Overlap.__dataclass_fields__})


def padded_vocabulary(model: ModelSpec, plan: Plan, stack: Stack) -> int:
    """Vocabulary rounded up to the stack's multiple times the tensor group."""
    multiple = stack.vocabulary_multiple * plan.tensor_x * plan.tensor_y
    return -(-model.vocab // multiple) * multiple


@lru_cache(maxsize=256)
def local_sizes(model: ModelSpec, plan: Plan, stack: Stack) -> Sizes:
    """Work out the sizes. The plan must have passed its rules."""
    sequence = plan.sequence or model.sequence
    local = sequence // plan.context
    tokens = plan.micro_batch * local
    split = plan.tensor_x if plan.sequence_parallel else 1
    return Sizes(
        model=model,
        plan=plan,
        stack=stack,
        sequence=sequence,
        local_sequence=local,
        tokens=tokens,
        norm_tokens=tokens // split,
        hidden=model.hidden // plan.tensor_y,
        element_bytes=BYTES_PER_ELEMENT[activation_precision(plan.precision)],
        overlap=resolve_overlap(plan, stack),
        vocab=padded_vocabulary(model, plan, stack),
    )


def local_heads(attention: Attention, tensor_x: int) -> tuple[int, int]:
    """Query heads and key-value heads of a device; key-value heads are copied where there are fewer than x."""
    return attention.heads // tensor_x, max(1, attention.kv_heads // tensor_x)
