import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.simulator.engines.bounds import (
    Passes,
    PipelineShape,
    lower_bound,
    pipeline_bound,
    pipeline_bounds,
    pipeline_terms,
)
from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.graph import TaskGraph
from towtank.simulator.schedules.expand import pipeline_structure
from towtank.simulator.schedules.roles import Role


def makespan(kind, forward, backward, micro_batches, *, send=(0.0, 0.0), tail=0.0, head=None, blocking=False):
    """Exact makespan of a pipeline with durations [chunks, stages], sends [stages] and tails [stages]."""
    forward, backward = np.atleast_2d(forward), np.atleast_2d(backward)
    chunks, stages = forward.shape
    shape = {"blocking_sends": blocking}
    if head is not None:
        shape |= {"unroll_first_forward": True, "layers_per_chunk": ((1,) * chunks,) * stages}
    pipeline = pipeline_structure(kind, stages, chunks, micro_batches, **shape)
    role, stage, chunk = pipeline.role, pipeline.stage, pipeline.chunk
    table = np.zeros((len(Role), chunks, stages))
    table[Role.FORWARD], table[Role.BACKWARD] = forward, backward
    table[Role.SEND_FORWARD], table[Role.SEND_BACKWARD] = send
    table[Role.OPTIMIZER] = tail
    if head is not None:
        table[Role.PARAMETER_GATHER, 0] = head
    graph = TaskGraph(pipeline.structure, table[role, chunk, stage])
    exact = evaluate(graph, jit=False).makespan_s
    assert lower_bound(graph) <= exact
    return exact


@pytest.mark.parametrize("kind", ["1f1b", "gpipe"])
@pytest.mark.parametrize(
    ("stages", "micro_batches"), [(1, 1), (1, 5), (4, 1), (4, 3), (4, 4), (4, 9), (8, 64)]
)
def test_equal_stages_by_formula(kind, stages, micro_batches):
    """(m + p - 1)(f + b), Narayanan et al. 2021 (arXiv 2104.04473), section 2.2.1."""
    forward, backward = np.full(stages, 1.0), np.full(stages, 2.0)
    expected = (micro_batches + stages - 1) * 3
    assert pipeline_bound(forward, backward, micro_batches) == pytest.approx(expected)
    assert makespan(kind, forward, backward, micro_batches) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("stages", "chunks", "micro_batches"), [(2, 2, 2), (2, 2, 4), (4, 2, 8), (4, 3, 4), (8, 4, 16)]
)
def test_equal_stages_interleaved_by_formula(stages, chunks, micro_batches):
    """m v (f + b) + (p - 1)(f + b) for f and b of one chunk, arXiv 2104.04473, section 2.2.2."""
    forward, backward = np.full((chunks, stages), 1.0), np.full((chunks, stages), 2.0)
    expected = (micro_batches * chunks + stages - 1) * 3
    assert pipeline_bound(forward, backward, micro_batches) == pytest.approx(expected)
    assert makespan("interleaved", forward, backward, micro_batches) == pytest.approx(expected)


@pytest.mark.parametrize(("stages", "chunks", "micro_batches"), [(4, 1, 8), (4, 2, 8), (2, 4, 6)])
def test_bubble_fraction(stages, chunks, micro_batches):
    """Idle time over ideal time is (p - 1) / (v m), idle over total (p - 1) / (m + p - 1) for v = 1."""
    kind = "1f1b" if chunks == 1 else "interleaved"
    total = makespan(kind, np.ones((chunks, stages)), np.full((chunks, stages), 2.0), micro_batches)
    ideal = 3 * chunks * micro_batches
    assert (total - ideal) / ideal == pytest.approx((stages - 1) / (chunks * micro_batches))
    if chunks == 1:
        assert (total - ideal) / total == pytest.approx((stages - 1) / (micro_batches + stages - 1))


def test_sends_by_hand():
    # way to stage 1: 1 + 0.5; its work 2 x 3; way back 0.25 + 2; nothing hides them
    bound = pipeline_bound([1, 1], [2, 2], 2, send_forward_s=0.5, send_backward_s=0.25)
    assert bound == pytest.approx(1.5 + 6 + 2.25)


def test_blocking_sends_by_hand():
    # stage 1 also sends one gradient between its passes (the other is on the way back): 0.25 more
    # stage 0 computes 2 x 3 and sends 2 x 0.5: less
    bound = pipeline_bound([1, 1], [2, 2], 2, send_forward_s=0.5, send_backward_s=0.25, blocking_sends=True)
    assert bound == pytest.approx(1.5 + 6 + 0.25 + 2.25)


def test_heads_and_tails_by_hand():
    # stage 1 can start at 5, not at 1; from there 2 x 3 of work; then stage 0: 2 + 7, not its own 4
    bound = pipeline_bound([1, 1], [2, 2], 2, head_s=[0, 5], tail_s=[7, 4])
    assert bound == pytest.approx(5 + 6 + 2 + 7)


def test_one_micro_batch_goes_there_and_back():
    assert (
        pipeline_bound([[1, 2], [3, 4]], [[5, 6], [7, 8]], 1, send_forward_s=1, send_backward_s=1)
        == 36 + 3 + 3
    )


@st.composite
def pipelines(draw: st.DrawFn):
    kind = draw(st.sampled_from(["gpipe", "1f1b", "interleaved"]))
    stages = draw(st.integers(2, 5))
    chunks = draw(st.integers(2, 3)) if kind == "interleaved" else 1
    micro_batches = draw(st.integers(1, 3)) * stages if kind == "interleaved" else draw(st.integers(1, 9))

    def seconds(*shape):
        count = int(np.prod(shape))
        return np.array(draw(st.lists(st.floats(0, 10), min_size=count, max_size=count))).reshape(shape)

    return {
        "kind": kind,
        "forward": seconds(chunks, stages),
        "backward": seconds(chunks, stages),
        "micro_batches": micro_batches,
        "send": (seconds(stages), seconds(stages)),
        "tail": seconds(stages),
        "head": draw(st.one_of(st.none(), st.just(seconds(stages)))),
        "blocking": draw(st.booleans()),
    }


@settings(max_examples=200, deadline=None)
@given(pipelines())
def test_bound_is_never_above_the_engine(case):
    bound = pipeline_bound(
        case["forward"],
        case["backward"],
        case["micro_batches"],
        send_forward_s=case["send"][0],
        send_backward_s=case["send"][1],
        blocking_sends=case["blocking"],
        head_s=0.0 if case["head"] is None else case["head"],
        tail_s=case["tail"],
    )
    assert bound <= makespan(**case) * (1 + 1e-12) + 1e-12


def passes_of(each, count):
    return Passes.of_chunks(np.full((1, len(count)), each))


@pytest.mark.parametrize("micro_batches", [3, 9, 64])
def test_alike_stages_in_one_entry_are_bound_nearly_as_one_by_one(micro_batches):
    """Six alike stages, the first four as one entry, judged at the first of them."""
    send = {"send_forward_s": np.array(0.25), "send_backward_s": np.array(0.5)}
    ends = {"head_s": np.array(0.0), "tail_s": np.array(1.0), "blocking_sends": np.array(False)}
    found = []
    for count in ([1] * 6, [4, 1, 1]):
        shape = PipelineShape(1, np.array(count))
        terms = pipeline_terms(
            shape, passes_of(1.0, count), passes_of(2.0, count), np.array(micro_batches), **send, **ends
        )
        in_flight = 6 - shape.first
        found.append(float(pipeline_bounds(terms, in_flight)))
    assert 0.98 * found[0] < found[1] <= found[0]
    exact = makespan(
        "1f1b", np.ones(6), np.full(6, 2.0), micro_batches, send=(np.full(6, 0.25), np.full(6, 0.5)), tail=1.0
    )
    assert found[0] <= exact * (1 + 1e-12)


def test_rounds_of_micro_batches_wait_for_sends_by_hand():
    """Two stages, two micro-batches in flight: a round takes 2 x 3 + 2 x 0.5, not 6; then the last way back.

    m = 5: the fifth forward pass of stage 0 starts after two rounds, its backward pass ends a round later.
    """
    bound = pipeline_bound([1, 1], [2, 2], 5, send_forward_s=0.5, send_backward_s=0.5, in_flight=[2, 1])
    exact = makespan("1f1b", [1, 1], [2, 2], 5, send=([0.5, 0.5], [0.5, 0.5]))
    assert bound == exact == 21


def test_many_pipelines_at_once_are_each_bound_as_alone():
    forward, backward = np.array([[[1.0, 2.0]], [[3.0, 1.0]]]), np.array([[[2.0, 2.0]], [[1.0, 5.0]]])
    terms = pipeline_terms(
        PipelineShape.of_stages(1, 2),
        Passes.of_chunks(forward),
        Passes.of_chunks(backward),
        np.array([4, 7]),
        send_forward_s=np.array([[0.5], [0.25]]),
        send_backward_s=np.array([[0.5], [0.25]]),
        blocking_sends=np.array([True, False]),
        head_s=np.zeros(2),
        tail_s=np.zeros(2),
    )
    alone = [
        pipeline_bound(
            forward[n],
            backward[n],
            m,
            send_forward_s=s,
            send_backward_s=s,
            blocking_sends=b,
            in_flight=[2, 1],
        )
        for n, (m, s, b) in enumerate([(4, 0.5, True), (7, 0.25, False)])
    ]
    assert pipeline_bounds(terms, np.array([2, 1])).tolist() == alone
