"""Fused expert layers (mixture of experts): a roofline and a surface fitted to measured layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from towtank.hardware_profiles.curves.grid import Grid

Distribution = Literal["balanced", "power_law"]
"""How tokens spread over experts; `power_law` is the exponent 1.2 of the tables, most loaded rank."""

LAUNCH_FLOOR_S = 20e-6  # a fused layer is several kernels; the fitted surface corrects it
ACTIVATION_BYTES = 2.0  # between its multiplies a layer is in bf16 or fp16

GATED_MATRICES = 3
"""Matrices of a gated expert (gate, up, down); an expert without a gate has two."""


def layer_flop(
    tokens: float, hidden: float, inter: float, top_k: float, matrices: int = GATED_MATRICES
) -> float:
    """FLOP of an expert layer: 2 x matrices x tokens x top_k x hidden x inter."""
    return 2.0 * matrices * tokens * top_k * hidden * inter


def roofline_s(
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    element_bytes: float,
    copies: float,
    hidden: float,
    inter: float,
    num_experts: float,
    tokens: float,
    matrices: int = GATED_MATRICES,
) -> float:
    """Seconds of an expert layer on one rank: multiplies, then what passes through memory, then 20 us.

    max(FLOP over peak, weights over bandwidth) + (4 hidden + matrices x inter) of each copy over bandwidth (gathered
    and weighted: read and written; activation: its inputs read, its output written) + hidden of each of `tokens` (the
    result, of all tokens that the rank holds) over bandwidth + launches.
    """
    multiplies = max(
        layer_flop(copies, hidden, inter, 1, matrices) / peak_flop_per_s,
        element_bytes * matrices * num_experts * hidden * inter / memory_bytes_per_s,
    )
    passes = copies * (4.0 * hidden + matrices * inter) + tokens * hidden
    return multiplies + ACTIVATION_BYTES * passes / memory_bytes_per_s + LAUNCH_FLOOR_S


@dataclass(frozen=True, slots=True)
class ExpertCurve:
    """Expert layers of one device in one precision, router and exchange between devices not included.

    Sizes are those of one rank: `tokens` x `top_k` copies arrive at its `num_experts` experts, whose intermediate
    size is `inter` (already divided by a tensor-parallel degree); fractions are allowed.

    `expert_parallel` is the degree at which the layer was measured: the rank then held the tokens of all ranks of the
    group, sorted out its own copies and wrote a result for every token. Where the exchange between devices is counted
    apart, ask with degree 1: the rank holds only tokens of its own.
    """

    precision: str
    reference_peak_flop_per_s: float
    memory_bytes_per_s: float
    element_bytes: float
    residual: Mapping[str, Grid]
    """By routing, log2 of time over roofline on (experts, hidden, inter, copies per expert)."""
    degree: Mapping[str, Grid]
    """By routing, what the expert degree adds to it, on (expert degree, copies per expert)."""

    def latency_s(
        self,
        tokens: float,
        hidden: float,
        inter: float,
        top_k: float,
        num_experts: float,
        distribution: Distribution = "balanced",
        expert_parallel: int = 1,
        matrices: int = GATED_MATRICES,
    ) -> float:
        """Predicted seconds of the layer's forward pass; with `power_law`, of the most loaded rank."""
        copies = float(tokens * top_k)
        per_expert = max(copies / num_experts, 1e-3)
        peak = self.reference_peak_flop_per_s
        time = roofline_s(
            peak,
            self.memory_bytes_per_s,
            self.element_bytes,
            copies,
            hidden,
            inter,
            num_experts,
            tokens * expert_parallel,
            matrices,
        )
        slowdown: float = self.residual[distribution].at((num_experts, hidden, inter, per_expert))
        slowdown += self.degree[distribution].at((expert_parallel, per_expert))
        return max(time * float(2.0**slowdown), layer_flop(tokens, hidden, inter, top_k, matrices) / peak)

    def flop_per_s(
        self,
        tokens: float,
        hidden: float,
        inter: float,
        top_k: float,
        num_experts: float,
        distribution: Distribution = "balanced",
        expert_parallel: int = 1,
    ) -> float:
        """`layer_flop` of a gated layer over `latency_s`."""
        time = self.latency_s(tokens, hidden, inter, top_k, num_experts, distribution, expert_parallel)
        return layer_flop(tokens, hidden, inter, top_k) / time

    def efficiency(
        self,
        tokens: float,
        hidden: float,
        inter: float,
        top_k: float,
        num_experts: float,
        distribution: Distribution = "balanced",
        expert_parallel: int = 1,
    ) -> float:
        """`flop_per_s` over the dense peak of the measured device, in (0, 1]."""
        rate = self.flop_per_s(tokens, hidden, inter, top_k, num_experts, distribution, expert_parallel)
        return rate / self.reference_peak_flop_per_s

    def is_clamped(
        self, tokens: float, hidden: float, inter: float, top_k: float, num_experts: float
    ) -> bool:
        """Tell whether the sizes lie outside of the measured ones."""
        per_expert = max(tokens * top_k / num_experts, 1e-3)
        return self.residual["balanced"].is_clamped((num_experts, hidden, inter, per_expert))
