"""Which experts a token visits, and with what weight.

Probabilities are a softmax over all experts, of which the largest `top_k` count; several are scaled to a sum of 1
(Mixtral, arXiv 2401.04088, section 2.1: the same as a softmax over the chosen ones), a single one stays as it is, or
the router would have no gradient (Switch Transformer, arXiv 2101.03961, equation 2).
"""

import math
from typing import NamedTuple

import torch


class Routes(NamedTuple):
    """Choice of each token."""

    experts: torch.Tensor
    """[tokens, top_k], int64, from the most probable on."""
    weights: torch.Tensor
    """[tokens, top_k], in the type of the logits."""
    probabilities: torch.Tensor
    """Softmax over all experts, [tokens, experts]."""


def choose(logits: torch.Tensor, top_k: int) -> Routes:
    """Choose experts by logits [tokens, experts], fp32 or float64."""
    probabilities = logits.softmax(-1)
    weights, experts = probabilities.topk(top_k, dim=-1)
    if top_k > 1:
        weights = weights / weights.sum(-1, keepdim=True)
    return Routes(experts, weights, probabilities)


def choice_gradient(routes: Routes, gradient: torch.Tensor) -> torch.Tensor:
    """Gradient of the logits, from that of the weights [tokens, top_k]."""
    chosen = routes.probabilities.gather(-1, routes.experts)
    if routes.experts.shape[-1] > 1:
        # w_i = p_i / s with s the sum of the chosen: dp_i = (dw_i - sum_j dw_j w_j) / s
        inner = (gradient * routes.weights).sum(-1, keepdim=True)
        gradient = (gradient - inner) / chosen.sum(-1, keepdim=True)
    of_probabilities = torch.zeros_like(routes.probabilities).scatter_(-1, routes.experts, gradient)
    inner = (of_probabilities * routes.probabilities).sum(-1, keepdim=True)
    return (of_probabilities - inner) * routes.probabilities


def expert_capacity(factor: float, top_k: int, sequence: int, num_experts: int) -> int:
    """Copies of one sequence's tokens that an expert takes: ceil(factor x sequence x top_k / experts).

    Counted by sequence, so that what is dropped does not depend on micro-batch and plan.
    """
    return math.ceil(factor * sequence * top_k / num_experts - 1e-9)


def within_capacity(
    experts: torch.Tensor, sequences: torch.Tensor, positions: torch.Tensor, capacity: int
) -> torch.Tensor:
    """Which copies an expert takes: of each sequence the first by position.

    Args:
        experts: choices [tokens, top_k], of all tokens of these sequences.
        sequences: number of the sequence of each token.
        positions: place of each token in its sequence.
        capacity: copies that an expert takes of each sequence.

    Returns:
        Booleans [tokens, top_k].
    """
    tokens, top_k = experts.shape
    place = positions.argsort(stable=True)
    queue = (sequences[:, None] * (int(experts.max()) + 1) + experts)[place].flatten()
    order = queue.argsort(stable=True)
    sorted_queue = queue[order]
    # how many before it in the same queue: own place less that of the queue's first
    before = torch.arange(tokens * top_k, device=experts.device) - torch.searchsorted(
        sorted_queue, sorted_queue
    )
    taken = torch.empty_like(queue, dtype=torch.bool)
    taken[order] = before < capacity
    result = torch.empty_like(experts, dtype=torch.bool)
    result[place] = taken.view(tokens, top_k)
    return result
