"""Bytes and seconds of the collectives of fully connected layers on a grid."""

from dataclasses import dataclass
from typing import Self

from towtank.simulator.axonn.bandwidth import AxisBandwidths
from towtank.simulator.axonn.grid import Grid
from towtank.simulator.errors import PlanError
from towtank.simulator.models.records import LatentAttention, ModelSpec

BYTES_16_BIT = 2
"""Activations, gathered weights and reduced weight gradients travel in bf16."""
BYTES_32_BIT = 4
"""Gradients are all-reduced over data in fp32 (Megatron's main gradients)."""

SCRIPT_TIME_RATIO = 1e9 / 1024**3
"""Seconds as the authors' script counts them (GiB over GB/s) per second: 0.9313."""


@dataclass(frozen=True, slots=True)
class FullyConnected:
    """A linear layer with `inputs` (k) and `outputs` (n) features; transposed ones swap x and y."""

    name: str
    inputs: int
    outputs: int
    transposed: bool


def gpt_block(hidden: int) -> tuple[FullyConnected, ...]:
    """Linear layers of one GPT block; every second one is transposed: no change of layout between them."""
    return (
        FullyConnected("qkv", hidden, 3 * hidden, transposed=False),
        FullyConnected("attention dense", hidden, hidden, transposed=True),
        FullyConnected("h to 4h", hidden, 4 * hidden, transposed=False),
        FullyConnected("4h to h", 4 * hidden, hidden, transposed=True),
    )


def model_block(model: ModelSpec) -> tuple[FullyConnected, ...]:
    """Linear layers of one block of a dense model with grouped-query attention and a gated or plain MLP.

    The pairs alternate like those of a GPT block; a gated MLP has one projection twice as wide. Raises
    PlanError for latent attention and experts, which the published model does not know.
    """
    if isinstance(model.attention, LatentAttention) or model.experts is not None:
        what = "experts" if model.experts is not None else "latent attention"
        raise PlanError(
            [f"{model.name} has {what}, unknown to AxoNN's communication model; predict the plan instead"]
        )
    attention, mlp, hidden = model.attention, model.mlp, model.hidden
    width = attention.heads * attention.head_dim
    keys_and_values = 2 * attention.kv_heads * attention.head_dim
    return (
        FullyConnected("qkv", hidden, width + keys_and_values, transposed=False),
        FullyConnected("attention dense", width, hidden, transposed=True),
        FullyConnected("mlp up", hidden, (2 if mlp.gated else 1) * mlp.hidden, transposed=False),
        FullyConnected("mlp down", mlp.hidden, hidden, transposed=True),
    )


@dataclass(frozen=True, slots=True)
class Passes:
    """How often each collective of a layer runs for one micro-batch."""

    forward_all_reduce: int
    backward_all_reduce: int
    all_gather: int
    reduce_scatter: int


FULL_RECOMPUTE = Passes(forward_all_reduce=2, backward_all_reduce=1, all_gather=2, reduce_scatter=1)
"""Every layer recomputed, recomputed weights kept for its backward pass: what the authors' script assumes."""
FULL_RECOMPUTE_REGATHER = Passes(forward_all_reduce=2, backward_all_reduce=1, all_gather=3, reduce_scatter=1)
"""The memory-efficient code path: weights are gathered again for the backward multiplies."""
NO_RECOMPUTE = Passes(forward_all_reduce=1, backward_all_reduce=1, all_gather=1, reduce_scatter=1)
"""Activations and gathered weights are kept."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What one step computes: a stack of equal blocks over a global batch of `sequences`."""

    block: tuple[FullyConnected, ...]
    num_layers: int
    sequences: int
    sequence_length: int
    num_micro_batches: int = 1
    passes: Passes = FULL_RECOMPUTE

    @classmethod
    def gpt(
        cls,
        *,
        num_layers: int,
        hidden: int,
        sequences: int,
        sequence_length: int,
        num_micro_batches: int = 1,
        passes: Passes = FULL_RECOMPUTE,
    ) -> Self:
        """Workload of a GPT with `num_layers` blocks of width `hidden`."""
        return cls(gpt_block(hidden), num_layers, sequences, sequence_length, num_micro_batches, passes)

    def tokens(self, grid: Grid) -> float:
        """Tokens that one device sees in a step (its shard of the batch over data and z)."""
        return self.sequences / grid.data / grid.z * self.sequence_length


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that each device sends in one step, by axis."""

    x_bytes: float
    y_bytes: float
    z_bytes: float
    data_bytes: float


@dataclass(frozen=True, slots=True)
class CommunicationTimes:
    """Seconds of one step spent in the collectives of each axis, one after the other."""

    x_s: float
    """All-reduces over x: AxoNN's "row" group."""
    y_s: float
    """All-reduces over y: AxoNN's "column" group."""
    z_s: float
    """All-gathers and reduce-scatters over z: AxoNN's "depth" group."""
    data_s: float
    """All-reduce of gradients over data."""

    @property
    def total_s(self) -> float:
        """All four; the model has no overlap."""
        return self.y_s + self.x_s + self.z_s + self.data_s

    def __add__(self, other: Self) -> "CommunicationTimes":
        return CommunicationTimes(
            self.x_s + other.x_s, self.y_s + other.y_s, self.z_s + other.z_s, self.data_s + other.data_s
        )

    def scaled(self, factor: float) -> "CommunicationTimes":
        """Every axis times `factor`."""
        return CommunicationTimes(
            self.x_s * factor, self.y_s * factor, self.z_s * factor, self.data_s * factor
        )


def _all_gather_bytes(size: int, gathered_bytes: float) -> float:
    """Bytes a device sends in a ring all-gather or reduce-scatter: (G - 1) / G of the whole array."""
    return (size - 1) / size * gathered_bytes


def _all_reduce_bytes(size: int, array_bytes: float) -> float:
    """Bytes a device sends in a ring all-reduce: a reduce-scatter and an all-gather."""
    return 2 * _all_gather_bytes(size, array_bytes)


def layer_traffic(layer: FullyConnected, grid: Grid, workload: Workload, *, compat: bool = False) -> Traffic:
    """Bytes that each device sends for one layer in one step, all passes together.

    For a normal layer, with m tokens a device (split over data and z), P passes and group sizes G:

        y     P_fwd 2 (G_y-1)/G_y · m n / G_x · 2 B           outputs, forward
        x     P_bwd 2 (G_x-1)/G_x · m k / G_y · 2 B           input gradients, backward
        z     (P_AG + P_RS) (G_z-1)/G_z · k n / (G_x G_y) · 2 B, for each micro-batch
        data  2 (G_data-1)/G_data · k n / (G_x G_y G_z) · 4 B

    A transposed layer swaps x and y. Source: SC'24 equations 1 to 5 (recalled) and comm_model.py, model_v2,
    whose sizes for transposed layers `compat` keeps (module docstring of `towtank.simulator.axonn`).
    """
    forward, backward = (grid.x, grid.y) if layer.transposed else (grid.y, grid.x)
    k, n = layer.inputs, layer.outputs
    if compat and layer.transposed:
        k, n = n, k
    m, passes, weights = workload.tokens(grid), workload.passes, layer.inputs * layer.outputs
    forward_bytes = passes.forward_all_reduce * _all_reduce_bytes(forward, m * n / backward * BYTES_16_BIT)
    backward_bytes = passes.backward_all_reduce * _all_reduce_bytes(backward, m * k / forward * BYTES_16_BIT)
    gathered = _all_gather_bytes(grid.z, weights / (grid.x * grid.y) * BYTES_16_BIT)
    x_bytes, y_bytes = backward_bytes, forward_bytes
    if layer.transposed:
        x_bytes, y_bytes = forward_bytes, backward_bytes
    return Traffic(
        x_bytes=x_bytes,
        y_bytes=y_bytes,
        z_bytes=(passes.all_gather + passes.reduce_scatter) * gathered * workload.num_micro_batches,
        data_bytes=_all_reduce_bytes(grid.data, weights / grid.tensor * BYTES_32_BIT),
    )


def layer_times(
    layer: FullyConnected,
    grid: Grid,
    workload: Workload,
    bandwidths: AxisBandwidths,
    *,
    compat: bool = False,
) -> CommunicationTimes:
    """Seconds of the collectives of one layer in one step: bytes over bandwidth (SC'24 equations 1 to 6).

    `compat` counts sizes and GiB as the authors' script does.
    """
    traffic = layer_traffic(layer, grid, workload, compat=compat)
    times = CommunicationTimes(
        x_s=traffic.x_bytes / bandwidths.x,
        y_s=traffic.y_bytes / bandwidths.y,
        z_s=traffic.z_bytes / bandwidths.z,
        data_s=traffic.data_bytes / bandwidths.data,
    )
    return times.scaled(SCRIPT_TIME_RATIO) if compat else times
