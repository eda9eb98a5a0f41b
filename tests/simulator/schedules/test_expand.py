import numpy as np
import pytest

from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.graph import TaskGraph
from towtank.simulator.schedules import ScheduleError
from towtank.simulator.schedules.expand import pipeline_structure
from towtank.simulator.schedules.roles import Role, StreamKind


def run(pipeline, seconds):
    """Start and finish by task name; `seconds` by role, the same for each stage and layer."""
    graph = TaskGraph(pipeline.structure, np.array([seconds.get(Role(role), 0.0) for role in pipeline.role]))
    timeline = evaluate(graph, jit=False)
    np.testing.assert_array_equal(timeline.finish_s, simulate(graph).finish_s)
    return {
        pipeline.describe(task): (timeline.start_s[task], timeline.finish_s[task])
        for task in range(len(pipeline.role))
    }


UNIT = {Role.FORWARD: 1.0, Role.BACKWARD: 2.0, Role.SEND_FORWARD: 1.0, Role.SEND_BACKWARD: 1.0}


def test_sends_overlap_with_compute():
    times = run(pipeline_structure("1f1b", 2, 1, 2), UNIT)
    assert times["forward stage 0 chunk 0 micro-batch 1"] == (1, 2)
    assert times["send-forward stage 0 chunk 0 micro-batch 0"] == (1, 2)
    assert times["send-forward stage 0 chunk 0 micro-batch 1"] == (2, 3)
    assert times["forward stage 1 chunk 0 micro-batch 0"] == (2, 3)
    assert times["backward stage 1 chunk 0 micro-batch 0"] == (3, 5)
    assert times["forward stage 1 chunk 0 micro-batch 1"] == (5, 6)
    assert times["backward stage 1 chunk 0 micro-batch 1"] == (6, 8)
    assert times["send-backward stage 1 chunk 0 micro-batch 0"] == (5, 6)
    assert times["backward stage 0 chunk 0 micro-batch 0"] == (6, 8)
    assert times["backward stage 0 chunk 0 micro-batch 1"] == (9, 11)
    assert times["optimizer stage 0"] == (11, 11)
    assert len(times) == 8 + 4 + 2


def test_blocking_sends_hold_up_the_sender():
    times = run(pipeline_structure("1f1b", 2, 1, 2, blocking_sends=True), UNIT)
    assert times["send-forward stage 0 chunk 0 micro-batch 0"] == (1, 2)
    assert times["forward stage 0 chunk 0 micro-batch 1"] == (2, 3)
    assert times["send-backward stage 1 chunk 0 micro-batch 0"] == (5, 6)
    assert times["forward stage 1 chunk 0 micro-batch 1"] == (6, 7)
    assert times["backward stage 0 chunk 0 micro-batch 1"] == (10, 12)


def test_interleaved_wraps_around():
    times = run(pipeline_structure("interleaved", 2, 2, 2), UNIT)
    # last stage to first: chunk 0 goes on as chunk 1, and back
    assert times["send-forward stage 1 chunk 0 micro-batch 0"] == (3, 4)
    assert times["forward stage 0 chunk 1 micro-batch 0"] == (4, 5)
    assert times["forward stage 1 chunk 1 micro-batch 0"] == (6, 7)
    assert times["backward stage 1 chunk 1 micro-batch 0"] == (7, 9)
    assert times["backward stage 0 chunk 1 micro-batch 0"] == (10, 12)
    assert times["send-backward stage 0 chunk 1 micro-batch 0"] == (12, 13)
    assert times["backward stage 1 chunk 0 micro-batch 0"][0] == 13
    assert "send-forward stage 1 chunk 1 micro-batch 0" not in times
    assert "send-backward stage 0 chunk 0 micro-batch 0" not in times


AROUND = UNIT | {
    Role.PARAMETER_GATHER: 1.0,
    Role.GRADIENT_REDUCE: 3.0,
    Role.GRADIENT_NORM: 1.0,
    Role.OPTIMIZER: 1.0,
    Role.PARAMETER_GATHER_AFTER: 2.0,
}


def test_unrolled_layers_wait_for_their_collectives():
    pipeline = pipeline_structure(
        "1f1b",
        1,
        1,
        1,
        layers_per_chunk=((2,),),
        unroll_first_forward=True,
        unroll_last_backward=True,
        gradient_norm=True,
        gather_after_optimizer=True,
    )
    assert run(pipeline, AROUND) == {
        "parameter-gather stage 0 chunk 0 layer 0": (0, 1),
        "parameter-gather stage 0 chunk 0 layer 1": (1, 2),
        "forward stage 0 chunk 0 micro-batch 0 layer 0": (1, 2),
        "forward stage 0 chunk 0 micro-batch 0 layer 1": (2, 3),
        "backward stage 0 chunk 0 micro-batch 0 layer 1": (3, 5),
        "backward stage 0 chunk 0 micro-batch 0 layer 0": (5, 7),
        "gradient-reduce stage 0 chunk 0 layer 1": (5, 8),
        "gradient-reduce stage 0 chunk 0 layer 0": (8, 11),
        "gradient-norm stage 0": (11, 12),
        "optimizer stage 0": (12, 13),
        "parameter-gather-after stage 0": (13, 15),
    }


def test_only_the_first_forward_and_last_backward_are_unrolled():
    pipeline = pipeline_structure(
        "1f1b", 2, 1, 3, layers_per_chunk=((2,), (3,)), unroll_first_forward=True, unroll_last_backward=True
    )
    for stage, layers in ((0, 2), (1, 3)):
        mine = pipeline.stage == stage
        for role, micro_batch, layer_order in (
            (Role.FORWARD, 0, list(range(layers))),
            (Role.BACKWARD, 2, list(range(layers))[::-1]),
        ):
            unrolled = mine & (pipeline.role == role) & (pipeline.layer >= 0)
            assert pipeline.layer[unrolled].tolist() == layer_order
            assert set(pipeline.micro_batch[unrolled]) == {micro_batch}
        for role in (Role.PARAMETER_GATHER, Role.GRADIENT_REDUCE):
            assert (mine & (pipeline.role == role)).sum() == layers


def test_a_chunk_of_no_layers_stays_whole():
    pipeline = pipeline_structure("1f1b", 2, 1, 1, layers_per_chunk=((0,), (2,)), unroll_first_forward=True)
    gathers = pipeline.role == Role.PARAMETER_GATHER
    assert pipeline.layer[gathers & (pipeline.stage == 0)].tolist() == [-1]
    assert pipeline.layer[gathers & (pipeline.stage == 1)].tolist() == [0, 1]
    times = run(pipeline, AROUND)
    assert times["forward stage 0 chunk 0 micro-batch 0"] == (1, 2)


def test_chunks_gather_and_reduce_in_the_order_in_which_they_run():
    pipeline = pipeline_structure(
        "interleaved",
        2,
        2,
        2,
        layers_per_chunk=((1, 1), (1, 1)),
        unroll_first_forward=True,
        unroll_last_backward=True,
    )
    for role, chunks in ((Role.PARAMETER_GATHER, [0, 1]), (Role.GRADIENT_REDUCE, [1, 0])):
        chosen = (pipeline.role == role) & (pipeline.stage == 1)
        assert pipeline.chunk[chosen].tolist() == chunks


def test_gradient_norm_waits_for_every_stage():
    # stage 1 ends its backward pass at 5 and its reduction at 8; stage 0: 8 and 11
    with_norm = run(pipeline_structure("1f1b", 2, 1, 1, reduce_gradients=True, gradient_norm=True), AROUND)
    assert with_norm["gradient-reduce stage 1"] == (5, 8)
    assert with_norm["gradient-reduce stage 0"] == (8, 11)
    assert with_norm["gradient-norm stage 1"] == with_norm["gradient-norm stage 0"] == (11, 12)
    assert with_norm["optimizer stage 1"] == (12, 13)
    without = run(pipeline_structure("1f1b", 2, 1, 1, reduce_gradients=True), AROUND)
    assert without["optimizer stage 1"] == (8, 9)
    assert without["optimizer stage 0"] == (11, 12)


def test_streams_and_devices():
    pipeline = pipeline_structure("1f1b", 3, 1, 2, reduce_gradients=True)
    structure = pipeline.structure
    assert structure.device.tolist() == [0, 1, 2] * 4
    assert structure.communicates.tolist() == [False] * 3 + [True] * 9
    kind = structure.stream // 3
    np.testing.assert_array_equal(structure.stream % 3, pipeline.stage)
    expected = {
        Role.FORWARD: StreamKind.COMPUTE,
        Role.BACKWARD: StreamKind.COMPUTE,
        Role.SEND_FORWARD: StreamKind.SEND_FORWARD,
        Role.SEND_BACKWARD: StreamKind.SEND_BACKWARD,
        Role.GRADIENT_REDUCE: StreamKind.DATA,
        Role.OPTIMIZER: StreamKind.COMPUTE,
    }
    assert set(zip(pipeline.role.tolist(), kind.tolist(), strict=True)) == set(expected.items())


def test_structures_are_cached():
    once = pipeline_structure("1f1b", 4, 1, 8, reduce_gradients=True)
    assert pipeline_structure("1f1b", 4, 1, 8, reduce_gradients=True) is once


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (None, "unrolling needs layers_per_chunk"),
        (((1,),), r"must have 2 stages of 1 chunks, got \[1\] chunks"),
        (((1,), (-2,)), "at least 0, got -2 at stage 1 chunk 0"),
    ],
)
def test_wrong_layers_are_refused(layers, message):
    with pytest.raises(ScheduleError, match=message):
        pipeline_structure("1f1b", 2, 1, 1, layers_per_chunk=layers, unroll_last_backward=True)


def test_wrong_schedule_is_refused():
    with pytest.raises(ScheduleError, match="set the number of micro-batches to 4 or 8"):
        pipeline_structure("interleaved", 4, 2, 7)


def chunked(kind, stages, chunks, micro_batches, by_chunk=True):
    pipeline = pipeline_structure(
        kind,
        stages,
        chunks,
        micro_batches,
        layers_per_chunk=((2,) * chunks,) * stages,
        unroll_first_forward=True,
        unroll_last_backward=True,
        by_chunk=by_chunk,
    )
    return run(pipeline, {Role.FORWARD: 1.0, Role.BACKWARD: 2.0, Role.PARAMETER_GATHER: 0.5})


def test_gradients_of_a_chunk_are_reduced_when_its_last_pass_is_done():
    times = chunked("interleaved", 2, 2, 2)

    def reduced(stage, chunk):
        return times[f"gradient-reduce stage {stage} chunk {chunk} layer 1"][0]

    # the first stage runs chunk 1 of both micro-batches, then chunk 0: it reduces each as soon as it is done
    assert reduced(0, 1) == times["backward stage 0 chunk 1 micro-batch 1 layer 0"][1]
    assert reduced(0, 0) == times["backward stage 0 chunk 0 micro-batch 1 layer 0"][1]
    # the second one waits for another pass, so that both begin together; chunk 0 has none to wait for
    assert reduced(1, 1) == times["backward stage 1 chunk 0 micro-batch 0"][1]
    assert reduced(1, 0) == times["backward stage 1 chunk 0 micro-batch 1 layer 0"][1]
    layerwise = chunked("interleaved", 2, 2, 2, by_chunk=False)
    first = layerwise["gradient-reduce stage 0 chunk 0 layer 1"][0]
    assert first == layerwise["backward stage 0 chunk 0 micro-batch 1 layer 1"][1] < reduced(0, 0)


def test_without_interleaving_all_stages_but_the_first_reduce_after_their_passes():
    times = chunked("1f1b", 2, 1, 2)
    last = "chunk 0 micro-batch 1 layer"
    for layer in (0, 1):
        first, second = (times[f"gradient-reduce stage {stage} chunk 0 layer {layer}"][0] for stage in (0, 1))
        assert first == times[f"backward stage 0 {last} {layer}"][1]
        assert second == times[f"backward stage 1 {last} 0"][1]


def test_parameters_of_a_later_chunk_are_gathered_when_its_turn_comes():
    times = chunked("interleaved", 2, 2, 2)
    assert times["parameter-gather stage 0 chunk 0 layer 0"][0] == 0
    assert times["parameter-gather stage 1 chunk 0 layer 0"][0] == 0
    before = times["forward stage 0 chunk 0 micro-batch 1"][1]
    assert times["parameter-gather stage 0 chunk 1 layer 0"] == (before, before + 0.5)
    assert times["parameter-gather stage 0 chunk 1 layer 1"] == (before + 0.5, before + 1.0)
    assert times["forward stage 0 chunk 1 micro-batch 0 layer 0"][0] >= before + 0.5


def test_one_stage_reduces_layer_by_layer():
    assert chunked("1f1b", 1, 1, 2) == chunked("1f1b", 1, 1, 2, by_chunk=False)
