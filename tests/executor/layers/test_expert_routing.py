"""Which experts tokens visit, and where their copies go."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.executor.distributed.mesh import Group
from towtank.executor.layers.experts.dispatch import plan_dispatch
from towtank.executor.layers.experts.routing import choice_gradient, choose, expert_capacity, within_capacity
from towtank.simulator.operations import Phase

ALONE = Group("alone", (0,), 0)


def test_choices_by_hand() -> None:
    # e^x = 1, 2, 4, 1: probabilities 1/8, 2/8, 4/8, 1/8
    logits = torch.tensor([[1.0, 2.0, 4.0, 1.0]], dtype=torch.float64).log()
    two = choose(logits, 2)
    assert two.experts.tolist() == [[2, 1]]
    assert two.weights[0].tolist() == pytest.approx([4 / 6, 2 / 6])
    assert choose(logits, 1).weights.tolist() == [pytest.approx([0.5])]


@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
def test_gradient_of_choices_is_that_of_autograd(top_k: int) -> None:
    generator = torch.Generator().manual_seed(top_k)
    logits = torch.randn((7, 5), dtype=torch.float64, generator=generator, requires_grad=True)
    gradient = torch.randn((7, top_k), dtype=torch.float64, generator=generator)
    routes = choose(logits, top_k)
    (expected,) = torch.autograd.grad(routes.weights, logits, gradient)
    assert (choice_gradient(routes, gradient) - expected).abs().max() < 1e-14


def test_capacity_by_hand() -> None:
    assert expert_capacity(1.0, 2, 16, 4) == 8
    assert expert_capacity(1.25, 2, 16, 4) == 10
    assert expert_capacity(1.1, 1, 10, 4) == 3
    # three tokens of one sequence want expert 0, the one at position 2 comes too late; the other sequence is apart
    experts = torch.tensor([[0, 1], [0, 1], [1, 0], [0, 2]])
    sequences, positions = torch.tensor([0, 0, 0, 1]), torch.tensor([2, 0, 1, 0])
    taken = within_capacity(experts, sequences, positions, 2)
    assert taken.tolist() == [[False, False], [True, True], [True, True], [True, True]]


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 1000))
def test_copies_come_back_to_their_tokens(tokens: int, top_k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    experts = torch.rand((tokens, 5), generator=generator).argsort()[:, :top_k]
    taken = torch.rand((tokens, top_k), generator=generator) < 0.7
    dispatch = plan_dispatch(experts, taken, 5, ALONE, ALONE, "a")
    numbers = torch.arange(tokens, dtype=torch.float64)[:, None] + 1
    at_experts = dispatch.to_experts(dispatch.permute(numbers), "a", Phase.FORWARD)
    assert list(dispatch.counts) == [int((taken & (experts == expert)).sum()) for expert in range(5)]
    start = 0
    for expert, count in enumerate(dispatch.counts):
        theirs = at_experts[start : start + count, 0] - 1
        start += count
        wanted = (taken & (experts == expert)).any(1).nonzero()[:, 0]
        assert sorted(theirs.tolist()) == wanted.tolist()
    back = dispatch.gather_slots(dispatch.from_experts(at_experts, "a", Phase.FORWARD))[..., 0]
    assert torch.equal(back, torch.where(taken, numbers, 0.0))
