"""Passes whose host is slower than their device, and stages dealt out by weights."""

import pytest
from lowered import gpt, plan, stack_with

from towtank.simulator.block_time import HOST
from towtank.simulator.lowering.stages import chunks_of
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import Attention, Mlp
from towtank.simulator.predict import predict
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack

MACHINE = "dgx-h100"


def slow(call_s, in_pipeline_s=0.0):
    host = {"tensor_call_s": call_s, "tensor_call_in_pipeline_s": in_pipeline_s}
    return stack_with("nanotron", host=host, fitted={"compute_slowdown": 0.0})


def passes(prediction, stage=0):
    step = prediction.step
    return step.forward[stage][0].makespan_s + step.backward[stage][0].makespan_s


def test_slow_host_sets_the_pace_of_tensor_parallel_passes():
    # a layer calls 4 times forward and 6 times backward (two gathers are repeated); the ends: scatter of the
    # embedding, gather before the head, sums of the loss; scatter behind the head, gather before the embedding
    the_plan = plan(tensor_x=2, sequence_parallel=True, micro_batches=3)
    prediction = predict(gpt(num_layers=4), MACHINE, the_plan, stack=slow(0.01))
    assert passes(prediction) == pytest.approx((4 * (4 + 6) + 3 + 2) * 0.01)
    assert prediction.breakdown_s[HOST] > 0.9 * prediction.step_time_s
    assert sum(prediction.breakdown_s.values()) == pytest.approx(prediction.step_time_s)


def test_host_in_a_pipeline_takes_its_time_for_each_member():
    the_plan = plan(tensor_x=4, sequence_parallel=True, pipeline=2, micro_batches=4, stage_layers=(2, 2))
    prediction = predict(gpt(num_layers=4), MACHINE, the_plan, stack=slow(7.0, 0.01))
    # first stage: two layers and the embedding
    assert passes(prediction) == pytest.approx((2 * (4 + 6) + 1 + 1) * 4 * 0.01)


def test_host_is_hidden_behind_a_slower_device_and_without_tensor_parallelism():
    the_plan = plan(tensor_x=2, sequence_parallel=True)
    free, quick = (predict(gpt(), MACHINE, the_plan, stack=slow(each)) for each in (0.0, 1e-9))
    assert quick.step_time_s == free.step_time_s
    assert HOST not in quick.breakdown_s
    alone = [predict(gpt(), MACHINE, plan(), stack=slow(each)).step_time_s for each in (0.0, 1.0)]
    assert alone[0] == alone[1]


def layers_of(model, stages):
    chunks = chunks_of(
        lower(model, plan(pipeline=stages, micro_batches=stages), load_stack("nanotron")).sizes
    )
    return [stage[0].num_layers for stage in chunks]


def test_stages_of_equal_weights():
    # printed for Llama 3 8B on 8 stages in a public walk through Nanotron's code at 67716392
    assert layers_of(load_model("llama3-8b"), 8) == [5, 4, 4, 5, 4, 4, 4, 2]
    # a layer has 4 h^2 + 3 h 4h = 16 h^2 weights, the head 64 h^2 or four layers: shares of 20 / 4 = 5 layers,
    # and a stage takes the layer that passes its share
    heads = Attention(32, 32, 64)
    model = gpt(num_layers=16, hidden=2048, attention=heads, mlp=Mlp(8192, gated=True), vocab=131072)
    assert layers_of(model, 4) == [6, 5, 5, 0]
    assert layers_of(model, 2) == [11, 5]
