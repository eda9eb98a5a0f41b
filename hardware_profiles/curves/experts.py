"""Fused expert layers (mixture of experts): a roofline and a surface fitted to measured layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from towtank.hardware_profiles.curves.grid import Grid

Distribution = Literal["balanced", "power_law"]
"""How tokens spread over experts; `power_law` is the exponent 1.2 of the tables, most loaded rank."""

LAUNCH_FLOOR_S = 10e-6  # a fused layer is several kernels; the fitted surface corrects it


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
    matrices: int = GATED_MATRICES,
) -> float:
    """Seconds: max(FLOP over peak, weights and activations over bandwidth) + 10 us."""
    flop = layer_flop(copies, hidden, inter, 1, matrices)
    moved = element_bytes * (
        matrices * num_experts * hidden * inter + copies * (hidden + inter)
    ) + 2.0 * copies * (hidden + (matrices - 1) * inter)
    return max(flop / peak_flop_per_s, moved / memory_bytes_per_s) + LAUNCH_FLOOR_S


@dataclass(frozen=True, slots=True)
class ExpertCurve:
    """Expert layers of one device in one precision, router and exchange between devices not included.

    Sizes are those of one rank: `tokens` x `top_k` copies arrive at its `num_experts` experts, whose intermediate
    size is `inter` (already divided by a tensor-parallel degree); fractions are allowed.

    `expert_parallel` is the degree at which the layer was measured. The rank then held the tokens of all ranks of the
    group and sorted them out before it computed its own, which shows in the time of small shares. Where the exchange
    between devices is counted apart, ask with degree 1: the time of the multiplies and passes of the copies alone.
    """

    precision: str
    reference_peak_flop_per_s: float
    memory_bytes_per_s: float
    element_bytes: float
    residual: Mapping[str, Grid]
    """By routing, log2 of time over roofline on (experts, hidden, inter, expert degree, copies per expert)."""

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
            matrices,
        )
        place = (num_experts, hidden, inter, expert_parallel, per_expert)
        slowdown: float = 2.0 ** self.residual[distribution].at(place)
        return max(time * slowdown, layer_flop(tokens, hidden, inter, top_k, matrices) / peak)

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
        return self.residual["balanced"].is_clamped((num_experts, hidden, inter, 1, per_expert))
