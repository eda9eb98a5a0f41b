"""Heads of a projection: what is kept of it, and angles."""

import torch

from towtank.executor.layers.rotary import Heads, angles, split_heads

HEADS = Heads("layer.0.attention", 2, 4, 2, 8)


def test_turned_heads_do_not_hold_the_projection() -> None:
    qkv = torch.randn(2 * 6, (4 + 2 + 2) * 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    q, k, v = split_heads(qkv, HEADS, angles(torch.arange(6), 8, torch.float32))
    assert torch.equal(v.reshape(12, 16), qkv[:, 48:])
    assert [each.untyped_storage().nbytes() for each in (q, k, v)] == [4 * each.numel() for each in (q, k, v)]


def test_position_zero_is_not_turned_and_lengths_stay() -> None:
    qkv = torch.randn(2 * 6, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    q, k, _ = split_heads(qkv, HEADS, angles(torch.arange(6), 8, torch.float64))
    plain = qkv.view(2, 6, 8, 8)
    assert torch.equal(q[:, 0], plain[:, 0, :4]) and torch.equal(k[:, 0], plain[:, 0, 4:6])
    torch.testing.assert_close(q.norm(dim=-1), plain[:, :, :4].norm(dim=-1))
    assert not torch.allclose(q[:, 1], plain[:, 1, :4])
