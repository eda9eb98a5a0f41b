"""Tokens to the order of their experts and back, forward and backward."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.draws import largest, normal, sum_of_products
from towtank.kernels.gradients import gradients_of
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Launch, Sizes, Tile, no_terms
from towtank.kernels.widen import wide

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

CASES: tuple[Sizes, ...] = (
    {"tokens": 12, "columns": 64, "experts": 4, "chosen": 2},
    {"tokens": 7, "columns": 33, "experts": 9, "chosen": 3},
    {"tokens": 3, "columns": 4100, "experts": 4, "chosen": 2},
    {"tokens": 1, "columns": 1, "experts": 1, "chosen": 1},
    {"tokens": 0, "columns": 3, "experts": 2, "chosen": 1},
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
    place = slots(_experts(sizes, generator))
    weights = wide(normal(place.shape, dtype, generator)).softmax(1)
    return normal((place.numel(), sizes["columns"]), dtype, generator), place, weights


def _library_permute(
    inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
) -> "tuple[torch.Tensor, ...]":
    return moe_permute(inputs, sizes)


def _library_unpermute(
    inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
) -> "tuple[torch.Tensor, ...]":
    """A gather and a sum in fp32 at least."""
    rows, place, weights = inputs
    return ((wide(rows[place]) * weights[..., None]).sum(1).to(rows.dtype),)


def _permute_backward_inputs(
    sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
) -> "tuple[torch.Tensor, ...]":
    """Gradient of the rows, the experts chosen, and the slots that the forward pass kept."""
    experts = _experts(sizes, generator)
    return normal((experts.numel(), sizes["columns"]), dtype, generator), experts, slots(experts)


def _permute_backward(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    gradient, experts, _ = inputs
    # linear in x, so that any x gives the gradient
    x = gradient.new_zeros((experts.shape[0], gradient.shape[1]))
    return gradients_of(moe_permute, (0,))((gradient, x, experts), sizes)


def _unpermute_backward_inputs(
    sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
) -> "tuple[torch.Tensor, ...]":
    """Gradient of the tokens, and the forward pass' rows, slots and weights."""
    given = _unpermute_inputs(sizes, dtype, generator)
    return normal((sizes["tokens"], sizes["columns"]), dtype, generator), *given


def _library_permute_backward(
    inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
) -> "tuple[torch.Tensor, ...]":
    """A gather and a sum in fp32 at least: each token's gradient is the sum of those of its copies."""
    gradient, _, place = inputs
    return (wide(gradient[place]).sum(1).to(gradient.dtype),)


def _library_unpermute_backward(
    inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
) -> "tuple[torch.Tensor, ...]":
    """Gradients of the rows and of the weights, as products with the token's gradient in fp32 at least."""
    gradient, rows, place, weights = inputs
    given = wide(gradient)[:, None]
    of_rows = allocate(*rows.shape, dtype=rows.dtype)
    of_rows[place.flatten()] = (given * weights[..., None]).flatten(0, 1).to(rows.dtype)
    return of_rows, (wide(rows[place]) * given).sum(-1).to(weights.dtype)


def _columns(sizes: Sizes) -> int:
    """Gradients of weights are sums over columns."""
    return sizes["columns"]


def _unpermute_backward_cost(sizes: Sizes, dtype: str) -> Cost:
    """Gradients of tokens read, rows read and gradients of rows written; slots, weights and their gradients."""
    choices = sizes["tokens"] * sizes["chosen"]
    moved = (sizes["tokens"] + 2 * choices) * sizes["columns"] * DTYPE_BYTES[dtype]
    return Cost(3.0 * choices * sizes["columns"], moved + choices * 16)


def _unpermute_terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """A gradient of a weight is a sum of products of any sign; where it is small, they are its scale."""
    gradient, rows, *_ = inputs
    return 0.0, sum_of_products(gradient, rows, sizes["columns"])


def _cost(per_element: float, index_bytes: int) -> "Callable[[Sizes, str], Cost]":
    """One read and one write of tokens and of their choices, and what tells where they go."""

    def cost(sizes: Sizes, dtype: str) -> Cost:
        choices = sizes["tokens"] * sizes["chosen"]
        moved = (sizes["tokens"] + choices) * sizes["columns"] * DTYPE_BYTES[dtype]
        return Cost(per_element * choices * sizes["columns"], moved + choices * index_bytes)

    return cost


def _fault(sizes: Sizes) -> str | None:
    experts, chosen = sizes["experts"], sizes["chosen"]
    return f"a token chooses {experts} experts at most, got {chosen}" if chosen > experts else None


def _one(sizes: Sizes) -> int:
    return 1


def _chosen(sizes: Sizes) -> int:
    """A token is the sum of its choices."""
    return sizes["chosen"]


def _copies(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """A token's copies are of any sign and few."""
    return (largest(inputs[0]),)


def _kernel(
    name: str,
    launch: Launch,
    inputs: "Callable[[Sizes, torch.dtype, torch.Generator], tuple[torch.Tensor, ...]]",
    reference: "Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]",
    cost: Callable[[Sizes, str], Cost],
    summed: Callable[[Sizes], int],
    terms: "Callable[[Tensors, Sizes], tuple[float, ...]]" = no_terms,
) -> Kernel:
    return Kernel(
        name=name,
        dimensions=DIMENSIONS,
        backends=(library(launch), triton("moe_permute", name)),
        inputs=inputs,
        reference=reference,
        cost=cost,
        cases=CASES,
        fault=_fault,
        summed=summed,
        terms=terms,
    )


KERNELS = (
    _kernel("moe_permute", _library_permute, _permute_inputs, moe_permute, _cost(0.0, 16), _one),
    _kernel("moe_unpermute", _library_unpermute, _unpermute_inputs, moe_unpermute, _cost(2.0, 12), _chosen),
    _kernel(
        "moe_permute_backward",
        _library_permute_backward,
        _permute_backward_inputs,
        _permute_backward,
        _cost(1.0, 8),
        _chosen,
        _copies,
    ),
    _kernel(
        "moe_unpermute_backward",
        _library_unpermute_backward,
        _unpermute_backward_inputs,
        gradients_of(moe_unpermute, (0, 2)),
        _unpermute_backward_cost,
        _columns,
        _unpermute_terms,
    ),
)
