"""Kernels as differentiable operations: what the modules of a model call.

    from towtank.kernels import functional

    functional.prove(torch.bfloat16, "cuda")                # now, rather than within the first step
    h = functional.rms_norm(x, weight)                      # x [..., columns]
    q = functional.rotary(functional.matmul(h, w_q).view(batch, sequence, heads, d), cos, sin)
    y = functional.attention(q, k, v)                       # [batch, sequence, heads or kv heads, d]
    z = functional.matmul(functional.swiglu(gate, up), w)   # y = x W^T with W [n, k], as PyTorch stores it
    loss = functional.cross_entropy(logits, labels)         # labels of -100 do not count
    loss.backward()
    functional.adamw(gradient, master, first, second, weight, step=1, rate=3e-4)

All take fp32, fp16, bf16 and float64 tensors on CPUs and GPUs, and return their dtype. By default products and
attention are the library's; on GPUs what only moves memory is one Triton kernel where that is installed and right
there. `using` forces a backend. A backend is used for a dtype on a device after forward and backward kernel have
passed validation there, which is recorded, so that it happens once a machine. Where Triton fails, the library takes
its place; where that fails, `KernelError` is raised.

Beside the differentiable operations there are plain ones, for algorithms that take a backward pass apart:
`matmul_dgrad` and `matmul_wgrad`, and `attention_block` with `attention_block_backward` for rings of keys.
"""

from towtank.kernels.functional.attention import attention, attention_block, attention_block_backward
from towtank.kernels.functional.choice import OPERATIONS, backend_of, prove, using
from towtank.kernels.functional.experts import moe_permute, moe_unpermute
from towtank.kernels.functional.layers import gelu, layer_norm, rms_norm, rotary, rotary_angles, swiglu
from towtank.kernels.functional.products import grouped_matmul, matmul, matmul_dgrad, matmul_wgrad
from towtank.kernels.functional.training import adamw, cross_entropy

__all__ = [
    "OPERATIONS", "adamw", "attention", "attention_block", "attention_block_backward", "backend_of", "cross_entropy",
    "gelu", "grouped_matmul", "layer_norm", "matmul", "matmul_dgrad", "matmul_wgrad", "moe_permute", "moe_unpermute",
    "prove", "rms_norm", "rotary", "rotary_angles", "swiglu", "using",
]  # fmt: skip
