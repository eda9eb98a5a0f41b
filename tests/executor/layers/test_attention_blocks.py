"""Attention put together from blocks, as a ring does, on one process."""

import pytest
import torch

from towtank.executor.distributed.mesh import Group
from towtank.executor.layers.attention_blocks import Block, block_backward, block_forward, merge
from towtank.executor.layers.context.ring import Ring, ring_attention, turns
from towtank.executor.layers.context.split import chunk_starts, local_positions


def whole(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v with all scores at once."""
    copies = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(copies, 2), v.repeat_interleave(copies, 2)
    place = torch.arange(q.shape[1])
    unseen = place[None] > place[:, None]
    if window is not None:
        unseen |= place[None] <= place[:, None] - window
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(unseen, -torch.inf).softmax(-1), v)


def drawn(tokens: int) -> list[torch.Tensor]:
    """Queries of four heads, keys and values of two, and a gradient, float64."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn((2, tokens, heads, 6), dtype=torch.float64, generator=generator) for heads in (4, 2, 2, 4)
    ]


def test_zigzag_positions_by_hand() -> None:
    assert [chunk_starts(16, 4, index, "ring") for index in range(4)] == [(0, 14), (2, 12), (4, 10), (6, 8)]
    assert local_positions(16, 4, 1, "ring").tolist() == [2, 3, 12, 13]
    assert local_positions(16, 4, 1, "all-to-all").tolist() == [4, 5, 6, 7]
    assert local_positions(16, 1, 0, "ring").tolist() == list(range(16))


@pytest.mark.parametrize("kind", ["ring", "all-to-all"])
def test_every_position_is_somewhere_once(kind: str) -> None:
    places = [local_positions(48, 4, index, kind) for index in range(4)]  # type: ignore[arg-type]
    assert sorted(torch.cat(places).tolist()) == list(range(48))


def test_members_of_a_ring_have_the_same_work() -> None:
    def work(index: int) -> float:
        ring = Ring("a", Group("context", tuple(range(4)), index), 64, None)
        blocks = [turn.block for owner in range(4) for turn in turns(ring, owner)]
        return sum(1.0 if block.full else 0.5 for block in blocks)

    # 8 chunks see 8 (8 + 1) / 2 - 8 / 2 = 32 whole blocks' worth, 8 for each of four
    assert [work(index) for index in range(4)] == [8.0] * 4


@pytest.mark.parametrize("window", [None, 1, 3, 4, 5, 11, 100])
def test_blocks_know_what_they_hide(window: int | None) -> None:
    for query in range(0, 16, 4):
        for key in range(0, 16, 4):
            block = Block(query, key, 4, 4, window)
            hidden = block.hidden(torch.device("cpu"))
            assert block.empty == bool(hidden.all())
            assert block.full == (not bool(hidden.any()))


@pytest.mark.parametrize("window", [None, 1, 3, 6, 9, 40])
def test_blocks_make_up_attention_and_its_gradients(window: int | None) -> None:
    q, k, v, gradient = drawn(16)
    chunk = 4
    for each in (q, k, v):
        each.requires_grad_()
    expected = whole(q, k, v, window)
    of_q, of_k, of_v = torch.autograd.grad(expected, (q, k, v), gradient)
    found = [torch.zeros_like(each) for each in (q, k, v)]
    with torch.no_grad():
        for first in range(0, 16, chunk):
            rows = slice(first, first + chunk)
            # from the own block backwards: the first one has a key for every query
            blocks = [Block(first, key, chunk, chunk, window) for key in range(first, -1, -chunk)]
            blocks = [block for block in blocks if not block.empty]
            parts = [
                block_forward(q[:, rows], k[:, at], v[:, at], block)
                for block in blocks
                for at in (slice(block.first_key, block.first_key + chunk),)
            ]
            output, logarithms = parts[0]
            for part in parts[1:]:
                output, logarithms = merge(output, logarithms, *part)
            assert (output - expected[:, rows]).abs().max() < 1e-12
            delta = (output * gradient[:, rows]).sum(-1, keepdim=True)
            for block in blocks:
                at = slice(block.first_key, block.first_key + chunk)
                dq, dk, dv = block_backward(
                    gradient[:, rows], q[:, rows], k[:, at], v[:, at], logarithms, delta, block
                )
                found[0][:, rows] += dq
                found[1][:, at] += dk
                found[2][:, at] += dv
    for mine, theirs in zip(found, (of_q, of_k, of_v), strict=True):
        assert (mine - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("repeats", [False, True])
def test_a_ring_of_one_is_attention(repeats: bool) -> None:
    q, k, v, gradient = drawn(12)
    for each in (q, k, v):
        each.requires_grad_()
    ring = Ring("a", Group("context", (0,), 0), 12, 5, repeats)
    expected, made = whole(q, k, v, 5), ring_attention(q, k, v, ring)
    assert (made - expected).abs().max() < 1e-12
    for mine, theirs in zip(
        torch.autograd.grad(made, (q, k, v), gradient),
        torch.autograd.grad(expected, (q, k, v), gradient),
        strict=True,
    ):
        assert (mine - theirs).abs().max() < 1e-12
