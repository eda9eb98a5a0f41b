"""AdamW in Triton: one program updates one block of parameters, in fp32."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]
_BLOCK = 1024


@triton.jit
def _adamw(gradient, master, first, second, weight, settings, elements, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < elements
    rate, beta_1, beta_2 = tl.load(settings), tl.load(settings + 1), tl.load(settings + 2)
    epsilon, decay = tl.load(settings + 3), tl.load(settings + 4)
    correction_1, correction_2 = tl.load(settings + 6), tl.load(settings + 7)
    g = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(master + place, mask=inside, other=0.0)
    m = beta_1 * tl.load(first + place, mask=inside, other=0.0) + (1.0 - beta_1) * g
    v = beta_2 * tl.load(second + place, mask=inside, other=0.0) + (1.0 - beta_2) * g * g
    update = (m / correction_1) / (tl.sqrt(v / correction_2) + epsilon)
    w = w * (1.0 - rate * decay) - rate * update
    tl.store(master + place, w, mask=inside)
    tl.store(first + place, m, mask=inside)
    tl.store(second + place, v, mask=inside)
    tl.store(weight + place, w.to(weight.dtype.element_ty), mask=inside)


def _launch(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    flat = [each.contiguous() for each in inputs]
    elements = flat[0].numel()
    _adamw[(triton.cdiv(elements, _BLOCK),)](*flat, elements, _BLOCK)
    for given, own in zip(inputs[1:5], flat[1:5], strict=True):
        if given is not own:  # it lay strided, so that a copy was updated
            given.copy_(own)
    return tuple(inputs[1:5])


LAUNCHERS: dict[str, Launch] = {"adamw": _launch}
