"""Activations against the equations of Korthikanti et al., arXiv 2205.05198, section 4, in bytes."""

import pytest
from lowered import HEADS, HIDDEN, SEQUENCE, gpt, moe, plan, stack_with

from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.memory.activations import head_bytes, layer_activations, layer_input_bytes
from towtank.simulator.stacks.load import load_stack

S, H, A = SEQUENCE, HIDDEN, HEADS
DENSE = (False, None)


def kept(the_plan, *, model=None, stack=None, kind=DENSE, recomputed=False):
    sizes = local_sizes(model or gpt(), the_plan, stack or load_stack("megatron-2021"))
    return layer_activations(sizes, kind, recomputed)


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("t", [1, 2, 4])
def test_equation_2_tensor_parallelism(t, b):
    # s b h (10 + 24 / t + 5 a s / (h t))
    expected = S * b * H * (10 + 24 / t + 5 * A * S / (H * t))
    assert kept(plan(tensor_x=t, micro_batch=b)).kept == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("t", [2, 4])
def test_equation_4_sequence_parallelism(t):
    # s b h / t (34 + 5 a s / h)
    expected = S * 2 * H / t * (34 + 5 * A * S / H)
    assert kept(plan(tensor_x=t, micro_batch=2, sequence_parallel=True)).kept == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("t", [2, 4])
def test_equation_6_selective_recompute_drops_the_scores(t):
    # 34 s b h / t; the scores come back for one layer at a time
    one = kept(plan(tensor_x=t, sequence_parallel=True, recompute="selective"))
    assert one.kept == pytest.approx(34 * S * H / t, rel=1e-12)
    assert one.working == pytest.approx(5 * A * S * S / t, rel=1e-12)


def test_full_recompute_keeps_the_input():
    # 2 s b h, and 2 s b h / t where sequence parallelism splits it
    assert kept(plan(tensor_x=2, recompute="full"), recomputed=True).kept == 2 * S * H
    split = plan(tensor_x=2, recompute="full", sequence_parallel=True)
    assert kept(split, recomputed=True).kept == 2 * S * H / 2


def test_flash_attention_keeps_one_number_a_query_and_head():
    # 34 s b h - no masks (3 s b h: 2 residual masks and none of the scores) + 4 a s b of log-sum-exp
    stack = load_stack("megatron-core")
    assert kept(plan(), stack=stack).kept == pytest.approx(S * H * (34 - 2) + 4 * A * S, rel=1e-12)


def test_context_parallelism_splits_everything():
    stack = load_stack("megatron-core")
    assert kept(plan(context=4), stack=stack).kept == pytest.approx(kept(plan(), stack=stack).kept / 4)


def test_fp8_inputs_are_kept_in_one_byte():
    # inputs of the four multiplies: 2 (h + h + h + 4 h) bytes become 1 (7 h)
    stack = load_stack("megatron-core")
    saved = kept(plan(), stack=stack).kept - kept(plan(precision="fp8"), stack=stack).kept
    assert saved == pytest.approx(7 * S * H)


def test_a_parallel_block_shares_its_norm():
    # one input and one output of the norm fewer: 2 x 2 s b h
    stack = load_stack("megatron-core")
    serial = kept(plan(), stack=stack).kept
    assert (
        serial - kept(plan(), stack=stack, model=gpt(parallel_block=True, norms_per_layer=1)).kept
        == 4 * S * H
    )
    # GPT-NeoX has two norms of one input
    assert serial - kept(plan(), stack=stack, model=gpt(parallel_block=True)).kept == 2 * S * H


def test_experts_keep_their_copies_of_tokens():
    # against a dense layer's [up 4 h, input h, down 4 h]: norm output h, router 4 x 8, and for each of 2 s copies:
    # input h, both halves of 512, product 512, output h
    stack = load_stack("megatron-core")
    dense = kept(plan(), stack=stack).kept
    routed = kept(plan(), stack=stack, model=moe(), kind=(True, None)).kept
    difference = 2 * S * H + 4 * 8 * S + 2 * S * 2 * (H + 2 * 512 + 512 + H) - 2 * S * (H + 4 * H + 4 * H)
    assert routed - dense == pytest.approx(difference)


def test_logits():
    # 1024 columns over t = 2; unfused: 2 bytes, an fp32 copy and its gradient; fused: 2 bytes
    vocabulary = 1024 / 2
    for fused, each in ((False, 10), (True, 2)):
        stack = stack_with("megatron-core", kernels={"fused_cross_entropy": fused})
        sizes = local_sizes(gpt(), plan(tensor_x=2), stack)
        assert head_bytes(sizes)[1] == S * vocabulary * each
        assert layer_input_bytes(sizes) == 2 * S * H
