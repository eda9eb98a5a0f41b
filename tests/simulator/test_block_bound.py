"""Bounds of blocks from figures of their templates, by hand and against the engine."""

import numpy as np
import pytest

from towtank.simulator.block_bound import (
    INSTANCES,
    TemplateFigures,
    Terms,
    block_bound_s,
    figures_of_many,
    template_figures,
)
from towtank.simulator.operations import (
    PREVIOUS,
    After,
    Elementwise,
    Message,
    Operation,
    Phase,
    Stream,
)

CALM = Terms(0.0, 0.0)


def operation(stream, name, *after):
    work = Elementwise(0.0, 1) if stream is Stream.COMPUTE else Message("all-gather", name, 1.0)
    return Operation(name, Phase.FORWARD, stream, work, after=tuple(after))


def figures(template, seconds, *, single_queue=False):
    """Figures of a template whose operations take `seconds` in turn."""
    left = list(seconds)
    values = template_figures(template, lambda work: left.pop(0), single_queue=single_queue)
    return TemplateFigures(values)


BLOCKING = (
    operation(Stream.COMPUTE, "a"),
    operation(Stream.TENSOR, "sum", After(0)),
    operation(Stream.COMPUTE, "b", After(1)),
)


def test_a_blocking_collective_stands_in_the_way_of_compute():
    # 3 + 2 + 4 in each of 10 layers
    found = figures(BLOCKING, (3.0, 2.0, 4.0))
    assert block_bound_s([(found, 10)], CALM) == 90
    assert found.held_s == 2


def test_a_single_queue_does_everything_in_turn():
    prefetched = (operation(Stream.GATHER, "w"), operation(Stream.COMPUTE, "a", After(0)))
    assert block_bound_s([(figures(prefetched, (2.0, 3.0), single_queue=True), 4)], CALM) == 20


PREFETCH = (
    operation(Stream.GATHER, "w", After(-1, 2)),
    operation(Stream.COMPUTE, "a", After(0)),
)
"""Gathers one layer ahead: that of a layer starts when the layer two before it has ended."""


@pytest.mark.parametrize(
    ("gather", "compute", "expected"),
    # a gather hides but for the first one; or compute does, but for the last one
    [(2.0, 5.0, 2 + 10 * 5), (5.0, 2.0, 10 * 5 + 2)],
)
def test_prefetched_gathers_by_hand(gather, compute, expected):
    assert block_bound_s([(figures(PREFETCH, (gather, compute)), 10)], CALM) == expected


def test_behind_another_template_the_first_gather_may_have_been_prefetched():
    first = figures((operation(Stream.COMPUTE, "embedding"),), (7.0,))
    layers = figures(PREFETCH, (2.0, 5.0))
    assert block_bound_s([(first, 1), (layers, 10)], CALM) == 7 + 50


def test_a_reduction_that_nothing_waits_for_ends_the_block():
    trailing = (operation(Stream.COMPUTE, "a", PREVIOUS), operation(Stream.SCATTER, "g", After(0)))
    assert block_bound_s([(figures(trailing, (5.0, 2.0)), 3)], CALM) == 17
    # the queue of reductions is behind: 5 + 3 x 6
    assert block_bound_s([(figures(trailing, (5.0, 6.0)), 3)], CALM) == 23


def test_the_host_can_take_longer():
    found = figures(BLOCKING, (3.0, 2.0, 4.0))
    assert block_bound_s([(found, 10)], Terms(0.0, 20.0)) == 200


def test_contention_by_formula():
    """Gathers of 4 beside compute of 5 hide; w + s / (1 + 2 s) u."""
    found = figures(PREFETCH, (4.0, 5.0))
    slowed = block_bound_s([(found, 100)], Terms(0.1, 0.0))
    assert slowed == pytest.approx(500 + 400 * 0.1 / 1.2)


def test_templates_of_many_plans_have_the_figures_of_each():
    seconds = np.array([[3.0, 1.0], [2.0, 9.0], [4.0, 4.0]])
    many = figures_of_many(BLOCKING, seconds, single_queue=False)
    for plan in range(2):
        np.testing.assert_array_equal(many[plan], figures(BLOCKING, seconds[:, plan]).values)
    rows = TemplateFigures(many, np.array([1, 0, 1]))
    assert block_bound_s([(rows, INSTANCES + 3)], CALM).tolist() == [98, 63, 98]
