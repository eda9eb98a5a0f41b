"""Attention kernels: achieved rates by sequence, parallel heads and head size; backward by published ratios.

FLOP here are those of a causal kernel: 2 b h s^2 d forward (half of the 4 b h s^2 d of full attention, the
diagonal neglected) and 2.5 times as many backward (five matrix products to two).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from towtank.hardware_profiles.curves.grid import Grid
from towtank.hardware_profiles.errors import ProfileError

Implementation = Literal["best", "flash2"]
"""`best`: the fastest kernel with a backward pass: cuDNN where its figures are published, FlashAttention-2 where it
is faster, and the tables (serving kernels of 2025, which have none) where nothing else is known.
`flash2`: FlashAttention-2, what stacks of 2023 ran."""

BACKWARD_FLOP_RATIO = 2.5

# The figures of the FlashAttention repository: 16k tokens per batch, hidden size 2048.
_PUBLISHED_TOKENS, _PUBLISHED_HIDDEN = 16384, 2048


def forward_flop(batch: int, sequence: int, heads: int, head_dim: int) -> float:
    """FLOP of one causal forward attention."""
    return 2.0 * batch * heads * float(sequence) ** 2 * head_dim


def published_parallel_heads(sequence: int, head_dim: int) -> int:
    """Batch times heads at which the FlashAttention figures were measured."""
    return max(_PUBLISHED_TOKENS // sequence, 1) * (_PUBLISHED_HIDDEN // head_dim)


@dataclass(frozen=True, slots=True)
class PublishedAttention:
    """Published figures of one implementation on one device, on (head_dim, sequence)."""

    device: str
    implementation: str
    forward_over_table: Grid | None
    """Forward rate over that of the tables at the same shape; None, taken as 1, where no forward figure exists."""
    backward_over_forward_time: Grid
    source: str


@dataclass(frozen=True, slots=True)
class AttentionCurve:
    """Causal forward attention of one device in one precision, and what is known of its backward pass."""

    precision: str
    reference_peak_flop_per_s: float
    multi_head: Grid
    """log2 of achieved FLOP/s on (head_dim, sequence, batch x heads), as many kv heads as heads."""
    grouped: Grid
    """The same with fewer kv heads than heads."""
    published: Mapping[str, PublishedAttention]

    def forward_flop_per_s(
        self,
        batch: int,
        sequence: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        implementation: Implementation = "best",
    ) -> float:
        """Achieved FLOP/s of the causal forward kernel (2 b h s^2 d over its time)."""
        rate = self.table_flop_per_s(batch, sequence, heads, kv_heads, head_dim)
        if implementation == "flash2":
            return rate * self._over_table("flash2", head_dim, sequence)
        known = [name for name in ("best", "flash2") if name in self.published]
        return rate * max((self._over_table(name, head_dim, sequence) for name in known), default=1.0)

    def table_flop_per_s(self, batch: int, sequence: int, heads: int, kv_heads: int, head_dim: int) -> float:
        """Achieved FLOP/s of the fastest kernel of the tables; at short sequences others are faster."""
        grid = self.multi_head if kv_heads == heads else self.grouped
        rate: float = 2.0 ** grid.at((head_dim, sequence, batch * heads))
        return rate

    def forward_efficiency(
        self,
        batch: int,
        sequence: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        implementation: Implementation = "best",
    ) -> float:
        """`forward_flop_per_s` over the dense peak of the measured device, in (0, 1]."""
        rate = self.forward_flop_per_s(batch, sequence, heads, kv_heads, head_dim, implementation)
        return rate / self.reference_peak_flop_per_s

    def backward_ratio(self, sequence: int, head_dim: int, implementation: Implementation = "best") -> float:
        """Time of the backward kernel over that of the forward kernel.

        From published forward+backward rates: 3.5 x forward rate / combined rate - 1. `best` uses the
        newest implementation with a published backward pass on this device or its nearest relative.
        """
        published = self._published(implementation)
        return published.backward_over_forward_time.at((head_dim, sequence))

    def backward_efficiency(
        self,
        batch: int,
        sequence: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        implementation: Implementation = "best",
    ) -> float:
        """Causal backward FLOP (2.5 times forward) over backward time, over the dense peak."""
        forward = self.forward_efficiency(batch, sequence, heads, kv_heads, head_dim, implementation)
        return forward * BACKWARD_FLOP_RATIO / self.backward_ratio(sequence, head_dim, implementation)

    def is_clamped(self, batch: int, sequence: int, heads: int, kv_heads: int, head_dim: int) -> bool:
        """Tell whether the shape lies outside of the measured ones; the rate of the edge is then used."""
        grid = self.multi_head if kv_heads == heads else self.grouped
        return grid.is_clamped((head_dim, sequence, batch * heads))

    def _over_table(self, implementation: str, head_dim: int, sequence: int) -> float:
        ratio = self._published(implementation).forward_over_table
        return 1.0 if ratio is None else ratio.at((head_dim, sequence))

    def _published(self, implementation: str) -> PublishedAttention:
        found = self.published.get(implementation)
        if found is None:
            raise ProfileError(
                f"no measured {implementation} attention for this device, only {sorted(self.published)}; "
                f'use implementation="best" or add rows to measurements/published_attention.csv'
            )
        return found
