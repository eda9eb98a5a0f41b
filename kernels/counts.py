"""Bytes per element and FLOP of the kernels of a training step, as pure functions of sizes.

A multiply and an add are two FLOP. Sizes are those of one device.
"""

BYTES_PER_ELEMENT = {
    "fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "mxfp8": 1.03125, "nvfp4": 0.5625,
}  # fmt: skip
"""mxfp8 holds one scale byte per 32 elements (OCP MX 1.0), nvfp4 one per 16."""


def matmul_flop(m: int, n: int, k: int, batch: int = 1) -> float:
    """FLOP of `batch` products of an m x k by a k x n matrix."""
    return 2.0 * batch * m * n * k


def matmul_bytes(m: int, n: int, k: int, element_bytes: float, output_bytes: float, batch: int = 1) -> float:
    """Bytes moved when both inputs are read once and the output is written once."""
    return batch * ((m * k + k * n) * element_bytes + m * n * output_bytes)


def attention_flop(batch: int, queries: int, keys: float, heads: int, head_dim: int, value_dim: int) -> float:
    """FLOP of scores and weighted values; `keys` is the mean number of keys that a query sees."""
    return 2.0 * batch * heads * queries * keys * (head_dim + value_dim)


def mean_keys(sequence: int, window: int | None, causal: bool) -> float:
    """Keys that a query sees on average: sequence, half of it if causal, less under a window."""
    if window is None or window >= sequence:
        return sequence / 2 if causal else float(sequence)
    return window * (1 - window / (2 * sequence)) if causal else float(window)


def adam_bytes_per_parameter(gradient_bytes: float, master_bytes: float, weight_bytes: float) -> float:
    """Bytes that a fused AdamW moves per parameter.

    It reads the gradient, the master weight and two fp32 moments, and writes back all but the gradient.
    """
    master = master_bytes if master_bytes else weight_bytes
    return gradient_bytes + 2 * master + 4 * 4.0 + (weight_bytes if master_bytes else 0.0)
