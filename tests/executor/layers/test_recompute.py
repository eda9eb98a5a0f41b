"""Passes that run again: the same gradients, marked as recomputation, and told when they are over."""

import pytest
import torch

from towtank.executor.layers.phases import forward_phase
from towtank.executor.layers.recompute import run_again, when_finished
from towtank.simulator.operations import Phase


def test_gradients_are_those_of_one_call() -> None:
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).requires_grad_()
    y = torch.linspace(2, 3, 6, dtype=torch.float64).requires_grad_()
    phases = []

    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        phases.append(forward_phase())
        return (a * b).tanh() * a

    run_again(function, x, y).sum().backward()
    expected = torch.autograd.grad((torch.tanh(x * y) * x).sum(), (x, y))
    assert x.grad is not None and y.grad is not None
    assert torch.equal(x.grad, expected[0])
    assert torch.equal(y.grad, expected[1])
    assert phases == [Phase.FORWARD, Phase.RECOMPUTE]
    assert forward_phase() is Phase.FORWARD


def test_inputs_without_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0])
    run_again(lambda a, b: a * b, x, weights).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, weights)
    assert weights.grad is None


def test_a_failure_while_it_runs_again_ends_the_mark() -> None:
    x = torch.ones(1, requires_grad=True)
    calls = []

    def function(a: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("no second time")
        return a * 2

    made = run_again(function, x)
    with pytest.raises(ValueError, match="no second time"):
        made.backward()
    assert forward_phase() is Phase.FORWARD


def test_told_after_what_followed_and_before_what_came_earlier() -> None:
    seen: list[str] = []
    x = torch.ones(2, requires_grad=True)
    x.register_hook(lambda gradient: seen.append("input"))
    first = when_finished(x, lambda: seen.append("first"))
    second = when_finished(first * 3, lambda: seen.append("second"))
    (second * 2).sum().backward()
    assert seen == ["second", "first", "input"]
    assert x.grad is not None and x.grad.tolist() == [6.0, 6.0]
