"""Tiles for kernels of Triton in its interpreter."""

_MATMUL = {"block_m": 128, "block_n": 256, "block_k": 64, "group_m": 2, "warps": 4, "stages": 2}
_GROUPED = {"block_m": 64, "block_n": 64, "block_k": 64, "warps": 4, "stages": 2}
TILES = {
    "matmul": _MATMUL,
    "matmul_dgrad": _MATMUL | {"block_k": 256},
    "matmul_wgrad": _MATMUL | {"block_n": 64},
    "fp8_matmul": _MATMUL | {"block_k": 128},
    **dict.fromkeys(("grouped_matmul", "grouped_matmul_dgrad", "grouped_matmul_wgrad"), _GROUPED),
    "attention": {"block_m": 64, "block_n": 64, "warps": 4, "stages": 2},
    "attention_backward": {"block_m": 128, "block_n": 128, "warps": 4, "stages": 2},
}
"""Tiles with which a case has several blocks and the interpreter is still quick."""
