"""Dropout whose masks are a function of what they fall on, so that every plan drops the same elements.

Element (token, feature) of a dropout site in a step is dropped by the hash of (seed, step, site, global token,
feature). However the plan cuts tokens and features over devices, and in whatever order they are worked on, each
device finds its part of the same mask; a layer that is recomputed finds its mask again. The hash is that of counter-
based generators (Salmon et al., SC'11): rounds of multiply and xor-shift (finaliser of splitmix64, Steele et al.,
OOPSLA 2014) in integer operations of torch, which wrap alike on all devices.
"""

import hashlib
from typing import Any

import torch

from towtank.executor.distributed.grid import Grid, apply
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.executor.settings import RunSettings
from towtank.simulator.operations import Phase

_ROUND = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Odd multipliers of splitmix64, 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB, as signed 64-bit integers."""


def _signed(value: int) -> int:
    """The 64-bit integer with the bits of `value`."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def stream_key(seed: int, step: int, site: str) -> int:
    """Key of one site's masks in one step: 64 bits of the SHA-256 of all three, as a signed integer."""
    digest = hashlib.sha256(f"{seed}/{step}/{site}".encode()).digest()
    return _signed(int.from_bytes(digest[:8], "little"))


def _mixed(values: torch.Tensor) -> torch.Tensor:
    """Mix 64 bits; `values` is overwritten. The upper bits of the result depend on all bits."""
    for shift, factor in zip((30, 27), _ROUND, strict=True):
        # shifts of signed integers bring in copies of the sign: cut them off
        values.bitwise_xor_((values >> shift).bitwise_and_((1 << (64 - shift)) - 1)).mul_(factor)
    return values


def kept(
    key: int, tokens: torch.Tensor, first_feature: int, num_features: int, probability: float
) -> torch.Tensor:
    """Which elements stay.

    Args:
        key: from `stream_key`.
        tokens: global numbers of the tokens, int64, any shape.
        first_feature: global number of the first feature here.
        num_features: features here.
        probability: of being dropped, 0 or more and below 1.

    Returns:
        Booleans [*tokens.shape, num_features], on the device of `tokens`.
    """
    features = torch.arange(first_feature, first_feature + num_features, device=tokens.device)
    # keys of rows and of columns are mixed apart, so that one mixing of their sum is enough for an element
    rows = _mixed(tokens.mul(2).add_(key))
    columns = _mixed(features.mul(2).add_(_signed(key + 1)))
    threshold = min(round(probability * 2**64), 2**64 - 1) - 2**63
    return _mixed(rows.unsqueeze(-1) + columns) >= threshold


class Dropout:
    """Dropout of the hidden state as one device sees it."""

    def __init__(self, settings: RunSettings, grid: Grid) -> None:
        self._grid, self._seed, self.probability = grid, settings.seed, settings.dropout

    def __call__(self, hidden: torch.Tensor, batch: MicroBatch, name: str) -> torch.Tensor:
        """Zero what is dropped, and scale the rest by 1 / (1 - probability).

        Args:
            hidden: [local tokens, local features].
            batch: whose tokens they are.
            name: of the site, such as layer.3.mlp.residual.dropout.
        """
        if self.probability == 0.0:
            return hidden
        dropped: torch.Tensor = apply(_Dropout, hidden, batch, name, self)
        return dropped

    def applied(self, values: torch.Tensor, batch: MicroBatch, name: str) -> torch.Tensor:
        """The same without autograd: for hidden states, and for their gradients."""
        x, y = self._grid.x, self._grid.y
        tokens = batch.rows.chunk(x.size)[x.index] if self._grid.split else batch.rows
        width = values.shape[-1]
        key = stream_key(self._seed, batch.step, name)
        mask = kept(key, tokens, y.index * width, width, self.probability)
        return torch.where(mask, values * (1.0 / (1.0 - self.probability)), 0.0)


class _Dropout(torch.autograd.Function):
    """The mask is worked out again, not kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, batch: MicroBatch, name: str, dropout: Dropout
    ) -> torch.Tensor:
        ctx.told = batch, name, dropout
        with recorder.operation(name, "elementwise", forward_phase()):
            return dropout.applied(hidden, batch, name)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        batch, name, dropout = ctx.told
        with recorder.operation(name, "elementwise", Phase.BACKWARD):
            return dropout.applied(gradients[0], batch, name), None, None, None
