"""Memory traffic of element-wise kernels, as passes over 16-bit elements and as kernel launches.

A pass is one read or one write of the whole tensor. Counted by hand from what each kernel must read and write;
`fused` is one kernel for the whole row of operations, `unfused` one kernel for each (eager PyTorch).
"""

from typing import NamedTuple


class Passes(NamedTuple):
    """Passes and launches of one element-wise operation, forward and backward."""

    forward: float
    backward: float
    forward_launches: int
    backward_launches: int
    kernel: str = ""
    """What it does, by which calibrations of a device name it; fused and unfused forms alike."""


# layer norm is one kernel even in eager mode; an eager RMS norm is a chain (cast, square, mean, rsqrt, multiply)
LAYER_NORM = Passes(2, 4, 1, 2, "norm")
RMS_NORM_FUSED = Passes(2, 4, 1, 2, "norm")
RMS_NORM_UNFUSED = Passes(11, 16, 6, 10, "norm")

# bias + dropout + residual: read input and residual, write sum; a dropout mask is one byte per element
RESIDUAL_FUSED = Passes(3, 2, 1, 1, "residual")
RESIDUAL_UNFUSED = Passes(5, 3, 2, 2, "residual")
DROPOUT_MASK = Passes(0.5, 0.5, 0, 0, "dropout")
DROPOUT_UNFUSED = Passes(2.5, 2.5, 1, 1, "dropout")

# activation, per element of its output; gated ones read two inputs and have two gradients
ACTIVATION_FUSED = Passes(2, 3, 1, 1, "activation")
ACTIVATION_UNFUSED = Passes(4, 5, 2, 2, "activation")
GATED_FUSED = Passes(3, 5, 1, 1, "gated")
GATED_UNFUSED = Passes(5, 8, 2, 4, "gated")

ROPE_FUSED = Passes(2, 2, 1, 1, "rope")
ROPE_UNFUSED = Passes(9, 9, 5, 5, "rope")

# scores of unfused attention: scale + mask + softmax in one kernel, then dropout
SOFTMAX = Passes(2, 3, 1, 1, "softmax")

# logits: the unfused form casts to fp32 and keeps the exponentials
CROSS_ENTROPY_FUSED = Passes(2, 2, 1, 1, "cross-entropy")
CROSS_ENTROPY_UNFUSED = Passes(13, 5, 6, 2, "cross-entropy")

# forward only, under autocast: cast to fp32 (1 + 2), logarithm of softmax (2 + 2)
CROSS_ENTROPY_METRIC = Passes(7, 0, 3, 0, "cross-entropy")

EMBEDDING = Passes(2, 3, 2, 2, "embedding")
PERMUTE = Passes(2, 2, 2, 2, "permute")
"""Gather of tokens by expert and its inverse, per routed token."""

EXPERT_BIAS = Passes(14, 20, 6, 8, "bias")
"""A bias on the output of grouped experts, scaled by the router's fp32 weights and added expert by expert (NVIDIA/
Megatron-LM, moe/experts.py, TEGroupedMLP._apply_bias). Forward in 16-bit passes: product of bias and weight writes
2; sum reads 1 + 2, writes 2; concatenation of the experts 2 + 2; cast 2 + 1. Backward: cast 1 + 2 and 2 + 1;
gradients of bias and of weights, 2 + 2 for the product and 2 for its sum each; splitting 1 + 1."""

CLAMPED = Passes(4, 6, 4, 6, "gated")
"""A gated activation whose inputs are clamped before its kernel (the same repository, fused_bias_geglu.py), per
element of its input. Forward: clamp 1 + 1, concatenation 1 + 1. Backward: mask of the clamp 1 + 1 + 1, padding and
sum of both halves 1 + 1 + 1."""

CAST = Passes(1.5, 1.5, 1, 1, "cast")
"""Read 16 bits, write 8: quantisation of one input of an fp8 multiply."""
