"""Shared memory of tiles worked out by hand, and tiles that a GPU can run."""

import pytest

from towtank.kernels import shared_memory
from towtank.kernels.registry import kernels

TILE = {"block_m": 128, "block_n": 256, "block_k": 64, "group_m": 8, "warps": 8, "stages": 3}
BLOCKS = {"block_m": 128, "block_n": 64, "warps": 8, "stages": 3}


@pytest.mark.parametrize(
    ("amd", "product", "attention"),
    [
        # three stages of (128 + 256) x 64 elements; 128 queries and three stages of 64 keys and values of 128
        (False, 3 * 384 * 64 * 2, (128 * 128 + 3 * 2 * 64 * 128) * 2),
        # one stage is in registers; 128 x 64 weights in place of the queries
        (True, 2 * 384 * 64 * 2, (2 * 2 * 64 * 128 + 128 * 64) * 2),
    ],
)
def test_needs_worked_out_by_hand(
    amd: bool, product: int, attention: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "is_amd", lambda: amd)
    assert shared_memory.of_product({}, TILE, "bfloat16") == product
    assert shared_memory.of_attention({"head_dim": 128}, BLOCKS, "bfloat16") == attention
    # 100 columns are computed as 128
    assert shared_memory.of_attention({"head_dim": 100}, BLOCKS, "bfloat16") == attention


def test_the_default_is_one_that_the_gpu_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = kernels()["matmul"].backend("triton")
    sizes = dict.fromkeys("mnk", 4096)
    every = backend.tiles(sizes, "bfloat16")
    assert every[0] == TILE
    monkeypatch.setattr(shared_memory, "of_block", lambda: 99 << 10)
    monkeypatch.setattr(shared_memory, "is_amd", lambda: False)
    found = backend.tiles(sizes, "bfloat16")
    assert found == tuple(
        each
        for each in every
        if (each["block_m"] + each["block_n"]) * each["block_k"] * 2 * each["stages"] <= 99 << 10
    )
    assert 10 < len(found) < len(every) - 10
    # of a GPU that has too little for any of them, validation is to tell
    monkeypatch.setattr(shared_memory, "of_block", lambda: 1)
    assert backend.tiles(sizes, "bfloat16") == every
