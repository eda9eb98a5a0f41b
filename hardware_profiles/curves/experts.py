"""Fused expert layers (mixture of experts): a roofline and a surface fitted to measured layers."""

from dataclasses import dataclass
from typing import Literal

from towtank.hardware_profiles.curves.grid import Grid

Distribution = Literal["balanced", "power_law"]
"""How tokens spread over experts; `power_law` is the exponent 1.2 of the tables, most loaded rank."""

LAUNCH_FLOOR_S = 10e-6  # a fused layer is several kernels; the fitted surface corrects it


def layer_flop(tokens: float, hidden: int, inter: int, top_k: int) -> float:
    """FLOP of a gated expert layer: three matrix multiplies, 2 x 3 x tokens x top_k x hidden x inter."""
    return 6.0 * tokens * top_k * hidden * inter


def roofline_s(
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    element_bytes: float,
    copies: float,
    hidden: float,
    inter: float,
    num_experts: float,
) -> float:
    """Seconds: max(FLOP over peak, weights and activations over bandwidth) + 10 us."""
    flop = 6.0 * copies * hidden * inter
    moved = element_bytes * (
        3.0 * num_experts * hidden * inter + copies * (hidden + inter)
    ) + 2.0 * copies * (hidden + 2.0 * inter)
    return max(flop / peak_flop_per_s, moved / memory_bytes_per_s) + LAUNCH_FLOOR_S


@dataclass(frozen=True, slots=True)
class ExpertCurve:
    """Expert layers of one device in one precision, router and exchange between devices not included.

    Sizes are those of one rank: `tokens` x `top_k` copies arrive at its `num_experts` experts, whose
    intermediate size is `inter` (already divided by a tensor-parallel degree).
    """

    precision: str
    reference_peak_flop_per_s: float
    memory_bytes_per_s: float
    element_bytes: float
    residual: Grid
    """log2 of time over roofline on (experts, hidden x inter, copies per expert)."""
    imbalance: Grid
    """log2 of the time of power-law routing over balanced routing on the expert-parallel degree."""

    def latency_s(
        self,
        tokens: int,
        hidden: int,
        inter: int,
        top_k: int,
        num_experts: int,
        distribution: Distribution = "balanced",
        expert_parallel: int = 1,
    ) -> float:
        """Predicted seconds of the layer's forward pass; with `power_law`, of the most loaded rank."""
        copies = float(tokens * top_k)
        per_expert = max(copies / num_experts, 1e-3)
        time = roofline_s(
            self.reference_peak_flop_per_s,
            self.memory_bytes_per_s,
            self.element_bytes,
            copies,
            hidden,
            inter,
            num_experts,
        )
        residual = self.residual.at((num_experts, hidden * inter, per_expert))
        if distribution == "power_law":
            residual += self.imbalance.at((expert_parallel,))
        bound = layer_flop(tokens, hidden, inter, top_k) / self.reference_peak_flop_per_s
        return max(float(time * 2.0**residual), bound)

    def flop_per_s(
        self,
        tokens: int,
        hidden: int,
        inter: int,
        top_k: int,
        num_experts: int,
        distribution: Distribution = "balanced",
        expert_parallel: int = 1,
    ) -> float:
        """`layer_flop` over `latency_s`."""
        time = self.latency_s(tokens, hidden, inter, top_k, num_experts, distribution, expert_parallel)
        return layer_flop(tokens, hidden, inter, top_k) / time

    def efficiency(
        self,
        tokens: int,
        hidden: int,
        inter: int,
        top_k: int,
        num_experts: int,
        distribution: Distribution = "balanced",
        expert_parallel: int = 1,
    ) -> float:
        """`flop_per_s` over the dense peak of the measured device, in (0, 1]."""
        rate = self.flop_per_s(tokens, hidden, inter, top_k, num_experts, distribution, expert_parallel)
        return rate / self.reference_peak_flop_per_s

    def is_clamped(self, tokens: int, hidden: int, inter: int, top_k: int, num_experts: int) -> bool:
        """Tell whether the sizes lie outside of the measured ones."""
        return self.residual.is_clamped(
            (num_experts, hidden * inter, max(tokens * top_k / num_experts, 1e-3))
        )
