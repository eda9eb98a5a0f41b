"""Times of kernels: floors, rooflines and what they scale with."""

from dataclasses import replace

import pytest

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.cost.compute import peak
from towtank.simulator.cost.model import CostModel, compute_costs
from towtank.simulator.errors import PlanError
from towtank.simulator.operations import AttentionCore, Elementwise, Matmul, Message
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

STACK = load_stack("megatron-core")


@pytest.fixture(scope="module", params=["perlmutter", "dgx-h100:nodes=1"])
def costs(request):
    return compute_costs(load_machine(request.param), STACK, ())


def test_elementwise_is_bytes_over_bandwidth_with_a_floor_for_each_launch(costs):
    rate, floor = costs.rates.memory_bytes_per_s, STACK.launch_overhead_s
    assert costs.duration_s(Elementwise(1e9, 1)) == pytest.approx(1e9 / rate)
    assert costs.duration_s(Elementwise(8.0, 3)) == pytest.approx(3 * floor)
    assert costs.duration_s(Elementwise(0.0, 0)) == 0


def test_multiplies_stay_under_the_roofline(costs):
    device = costs.rates.device
    for m, n, k in [(8192, 8192, 8192), (4096, 256, 8192), (64, 64, 64), (1, 4096, 4096)]:
        seconds = costs.duration_s(Matmul(m, n, k, "bf16", "forward"))
        assert seconds >= 2.0 * m * n * k / peak(device, "bf16")
        assert seconds >= 2.0 * (m * k + k * n + m * n) / device.memory_bandwidth_bytes_per_s
        assert seconds >= STACK.launch_overhead_s


def test_a_large_multiply_has_the_rate_of_the_device(costs):
    seconds = costs.duration_s(Matmul(8192, 8192, 8192, "bf16", "forward"))
    fraction = 2.0 * 8192**3 / seconds / peak(costs.rates.device, "bf16")
    assert 0.5 < fraction < 1


@pytest.mark.parametrize("side", [0, 1, 2])
def test_a_longer_multiply_takes_longer(costs, side):
    shape = [2048, 2048, 2048]
    short = costs.duration_s(Matmul(*shape, "bf16", "forward"))
    shape[side] *= 4
    assert costs.duration_s(Matmul(*shape, "bf16", "forward")) > 2 * short


def test_attention_backward_is_longer_than_forward_and_grows_with_the_sequence(costs):
    def time(sequence, backward=False):
        core = AttentionCore(1, sequence, sequence, sequence / 2, 32, 32, 128, 128, backward)
        return costs.duration_s(core)

    assert time(4096, backward=True) > 1.5 * time(4096)
    assert 3 < time(8192) / time(4096) < 4.5  # four times the work, at least the same efficiency


def test_an_unknown_precision_says_what_the_device_has():
    device = load_machine("perlmutter").device
    with pytest.raises(PlanError, match=r"fp8; it has .*bf16"):
        peak(device, "fp8")


def test_fitted_efficiency_scales_large_multiplies():
    machine = load_machine("perlmutter")
    slower = replace(
        STACK, fitted=replace(STACK.fitted, compute_efficiency=STACK.fitted.compute_efficiency / 2)
    )
    work = Matmul(8192, 8192, 8192, "bf16", "forward")
    pair = [CostModel(machine, Plan(), each).duration_s(work) for each in (STACK, slower)]
    assert pair[1] == pytest.approx(2 * pair[0])


def test_groups_of_one_send_nothing():
    cost = CostModel(load_machine("perlmutter"), Plan(), STACK)
    assert cost.duration_s(Message("all-reduce", "data", 1e9)) == 0


def test_collectives_inside_a_measured_node_follow_the_measurements():
    machine = load_machine("dgx-a100:nodes=2")
    cost = CostModel(machine, Plan(tensor_x=8, data=2), STACK)
    curves = cost.compute.rates.curves.collectives
    message = Message("all-reduce", "tensor_x", 64e6)
    assert cost.duration_s(message) == curves.time_s("all_reduce", 8, 64e6)


def test_attention_in_triton_against_flash_attention_2():
    # arXiv 2307.08691, section 4.1: 1.3 to 1.5 times slower forward, twice backward
    machine = load_machine("dgx-a100:nodes=1")
    two, triton = (
        compute_costs(machine, replace(STACK, kernels=replace(STACK.kernels, attention=name)), ())
        for name in ("flash2", "triton")
    )
    forward = AttentionCore(8, 4096, 4096, 2048.5, 32, 32, 128, 128, backward=False)
    assert 1.3 < triton.duration_s(forward) / two.duration_s(forward) < 1.5
    backward = forward._replace(backward=True)
    assert triton.duration_s(backward) == pytest.approx(2 * two.duration_s(backward))


def _plain(costs, work):
    """Seconds of the arithmetic alone: the roofline's other terms are far below it for these shapes."""
    seconds = costs.duration_s(work)
    assert seconds > 2 * STACK.launch_overhead_s
    return seconds


def test_a_shallow_multiply_continues_the_measured_times_as_a_line_in_depth(costs):
    depths = {k: _plain(costs, Matmul(8192, 8192, k, "bf16", "forward")) for k in (192, 256, 512)}
    slope = (depths[512] - depths[256]) / 256
    assert depths[192] == pytest.approx(depths[256] - 64 * slope)
    assert depths[192] > 0.75 * depths[256]  # what a tile costs besides its depth does not shrink


def test_rows_that_do_not_align_lose_the_tensor_cores(costs):
    work = Matmul(2048, 2048, 108, "bf16", "forward", 64)
    seconds = [costs.duration_s(work._replace(aligned=aligned)) for aligned in (True, False)]
    assert 4 < seconds[1] / seconds[0] <= 8  # an aligned one may be bound by memory instead


def test_members_of_a_tensor_group_meet_before_each_collective():
    machine, plan = load_machine("jean-zay-a100:nodes=2"), Plan(tensor_x=8, data=2)
    stack = load_stack("megatron-deepspeed")
    late = replace(stack, communication=replace(stack.communication, meeting_time_s=1e-3))
    prompt = replace(stack, communication=replace(stack.communication, meeting_time_s=0.0))

    def longer(group):
        message = Message("all-reduce", group, 1e6)
        return CostModel(machine, plan, late).duration_s(message) - CostModel(
            machine, plan, prompt
        ).duration_s(message)

    assert longer("tensor_x") == pytest.approx(7e-3)  # eight members, seven to wait for
    assert longer("data") == 0


def test_lists_of_shards_cost_the_host_a_view_and_a_copy_for_each_member():
    machine, plan = load_machine("dgx-a100:nodes=48"), Plan(data=384, zero_stage=3)
    stack = load_stack("megatron-deepspeed")
    whole = replace(stack, communication=replace(stack.communication, shards_in_lists=False))

    def longer(group):
        message = Message("all-gather", group, 1e9)
        times = [CostModel(machine, plan, each).duration_s(message) for each in (stack, whole)]
        return times[0] - times[1]

    assert longer("weight_shard") == pytest.approx(384 * 2 * 6e-6)  # 6 us a launch
    assert longer("data") == 0


def test_mxfp8_runs_at_the_rate_of_fp8_on_blackwell():
    costs = compute_costs(load_machine("dgx-b200"), STACK, ())
    times = [costs.duration_s(Matmul(8192, 8192, 8192, name, "forward")) for name in ("fp8", "mxfp8")]
    assert times[1] == pytest.approx(times[0])
