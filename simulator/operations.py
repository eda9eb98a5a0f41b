"""Operations: what one device does in a training step, by name, without any idea of time.

A step is lowered into blocks (the forward or backward pass of the layers of one pipeline chunk for one
micro-batch). A block repeats layer templates; `Operation.after` and FIFO order on each stream give the order.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Phase(StrEnum):
    """Part of the step that an operation belongs to."""

    FORWARD = "forward"
    RECOMPUTE = "recompute"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"


class Stream(StrEnum):
    """Serial queue of a device. Collectives of different groups have queues of their own."""

    COMPUTE = "compute"
    TENSOR = "tensor"
    GATHER = "weight-gather"
    SCATTER = "gradient-scatter"
    CONTEXT = "context"
    EXPERT = "expert"


class Matmul(NamedTuple):
    """Product of m x k and k x n matrices; `role` is forward, dgrad or wgrad; `experts` products at once."""

    m: int
    n: int
    k: int
    precision: str
    role: str
    batch: int = 1
    aligned: bool = True
    """Whether the rows of all operands begin at 16 bytes, as tensor cores load them."""
    layer: tuple[int, int] | None = None
    """(hidden, intermediate) size of the gated expert layer that a grouped product belongs to."""


class AttentionCore(NamedTuple):
    """Attention between queries and keys of one device."""

    batch: int
    queries: int
    keys: int
    mean_keys: float
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    backward: bool


class Elementwise(NamedTuple):
    """Memory-bound kernels: bytes moved and number of launches."""

    bytes: float
    launches: int
    kernel: str = ""
    """What they do and in which pass, such as `norm.backward`, where a device's calibration tells kernels apart."""


class Message(NamedTuple):
    """A collective or transfer over a group. `bytes` is the full array (NCCL convention)."""

    collective: str
    """all-reduce, all-gather, reduce-scatter, all-to-all, broadcast or send."""
    group: str
    """A group of the plan, such as tensor_x or weight_shard."""
    bytes: float
    fan_out: int = 0
    """Copies of each token in the array of an all-to-all that carries a token to each device and node once; 0 where
    every copy is sent."""


Work = Matmul | AttentionCore | Elementwise | Message


class After(NamedTuple):
    """Dependency on another operation of the block.

    With `back` 0: operation `position` of the same template instance. With `back` > 0: the instance so many before,
    whatever its template, and `position` counts its compute operations from the end (-1: the last one).
    """

    position: int
    back: int = 0


PREVIOUS = After(-1, 1)
"""The last compute operation of the instance before."""


class Operation(NamedTuple):
    """One operation of a template. `flop` counts attention in full (no causal saving)."""

    name: str
    phase: Phase
    stream: Stream
    work: Work
    flop: float = 0.0
    after: tuple[After, ...] = ()

    @property
    def kind(self) -> str:
        """Group under which time is reported."""
        if isinstance(self.work, Matmul):
            return "matmul"
        if isinstance(self.work, AttentionCore):
            return "attention"
        if isinstance(self.work, Elementwise):
            if self.work.launches and not self.work.bytes:
                return "launches"
            return "optimizer" if self.phase is Phase.OPTIMIZER else "elementwise"
        return f"{self.work.collective} {self.work.group}"


@dataclass(frozen=True, slots=True)
class Segment:
    """A template repeated for consecutive layers, or once (embedding, head) with `layer` -1."""

    template: tuple[Operation, ...]
    repeat: int
    prefixes: tuple[str, ...]
    """Name of each instance, such as layer.17; full names are prefix.name."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one stage does for one micro-batch in one pass over one chunk."""

    name: str
    segments: tuple[Segment, ...]
    signature: tuple[object, ...] = ()
    """Equal for blocks of one step that do the same."""

    def operations(self) -> list[tuple[str, Operation]]:
        """Every operation with its full name, in issue order."""
        return [
            (f"{prefix}.{operation.name}", operation)
            for segment in self.segments
            for prefix in segment.prefixes
            for operation in segment.template
        ]
