"""Tokens to the order of their experts and back."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.draws import normal
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Sizes, Tile

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

CASES: tuple[Sizes, ...] = (
    {"tokens": 12, "columns": 64, "experts": 4, "chosen": 2},
    {"tokens": 7, "columns": 33, "experts": 9, "chosen": 3},
    {"tokens": 1, "columns": 1, "experts": 1, "chosen": 1},
)
DIMENSIONS = ("tokens", "columns", "experts", "chosen")


def slots(experts: "torch.Tensor") -> "torch.Tensor":
    """Place of each choice [tokens, chosen] with all choices sorted by expert, then by token."""
    import torch

    flat = experts.flatten()
    order = torch.argsort(flat, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=order.device)
    return place.view(experts.shape)


def moe_permute(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """Rows of x in the order of experts, the slot of each choice, and the rows of each expert.

    x is [tokens, columns], the experts chosen are [tokens, chosen]; a token appears once for each choice.
    """
    x, experts = inputs
    place = slots(experts)
    rows = x.new_empty((experts.numel(), x.shape[1]))
    rows[place.flatten()] = x.repeat_interleave(experts.shape[1], 0)
    return rows, place, experts.flatten().bincount(minlength=sizes["experts"])


def moe_unpermute(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """Each token's rows [tokens chosen, columns] by slot, weighted by the router [tokens, chosen] and summed."""
    rows, place, weights = inputs
    return ((rows[place] * weights[..., None]).sum(1),)


def _experts(sizes: Sizes, generator: "torch.Generator") -> "torch.Tensor":
    """Different experts of each token, at random."""
    import torch

    scores = torch.rand(sizes["tokens"], sizes["experts"], generator=generator, device=generator.device)
    return scores.topk(sizes["chosen"], 1).indices


def _permute_inputs(
    sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
) -> "tuple[torch.Tensor, ...]":
    return normal((sizes["tokens"], sizes["columns"]), dtype, generator), _experts(sizes, generator)


def _unpermute_inputs(
    sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
) -> "tuple[torch.Tensor, ...]":
    import torch

    place = slots(_experts(sizes, generator))
    weights = normal(place.shape, torch.float32, generator).softmax(1)
    return normal((place.numel(), sizes["columns"]), dtype, generator), place, weights


def _library_permute(
    inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
) -> "tuple[torch.Tensor, ...]":
    return moe_permute(inputs, sizes)


def _library_unpermute(
    inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
) -> "tuple[torch.Tensor, ...]":
    """A gather and a sum in fp32."""
    rows, place, weights = inputs
    return ((rows[place].float() * weights[..., None]).sum(1).to(rows.dtype),)


def _cost(per_element: float, index_bytes: int) -> "Callable[[Sizes, str], Cost]":
    """One read and one write of tokens and of their choices, and what tells where they go."""

    def cost(sizes: Sizes, dtype: str) -> Cost:
        choices = sizes["tokens"] * sizes["chosen"]
        moved = (sizes["tokens"] + choices) * sizes["columns"] * DTYPE_BYTES[dtype]
        return Cost(per_element * choices * sizes["columns"], moved + choices * index_bytes)

    return cost


KERNELS = (
    Kernel(
        name="moe_permute",
        dimensions=DIMENSIONS,
        backends=(library(_library_permute), triton("moe_permute", "moe_permute")),
        inputs=_permute_inputs,
        reference=moe_permute,
        cost=_cost(0.0, 16),
        cases=CASES,
    ),
    Kernel(
        name="moe_unpermute",
        dimensions=DIMENSIONS,
        backends=(library(_library_unpermute), triton("moe_permute", "moe_unpermute")),
        inputs=_unpermute_inputs,
        reference=moe_unpermute,
        cost=_cost(2.0, 12),
        cases=CASES,
        summed=lambda sizes: sizes["chosen"],
    ),
)
