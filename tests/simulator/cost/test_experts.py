"""Grouped multiplies against measured expert layers."""

from dataclasses import replace

import pytest

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.cost.compute import matmul_time
from towtank.simulator.cost.experts import grouped_time
from towtank.simulator.cost.model import compute_costs
from towtank.simulator.operations import Matmul
from towtank.simulator.stacks.load import load_stack

STACK = load_stack("megatron-core")
LAYER = (2048, 768)
ROWS, EXPERTS = 2048, 16


def _rates(machine: str):
    return compute_costs(load_machine(machine), STACK, ()).rates


def _product(role: str, precision: str = "bf16", layer=LAYER) -> Matmul:
    shape = (2 * 768, 2048, ROWS) if role == "wgrad" else (ROWS, 2 * 768, 2048)
    return Matmul(*shape, precision, role, EXPERTS, layer=layer)


def test_both_products_and_the_passes_of_a_layer_take_its_measured_time():
    # 32,768 copies: gathered and summed up again (4 passes of 2048) and activated (3 passes of 768), 2 bytes each
    rates = _rates("dgx-h100")
    up = grouped_time(_product("forward"), rates)
    down = grouped_time(Matmul(ROWS, 2048, 768, "bf16", "forward", EXPERTS, layer=LAYER), rates)
    passes = 2 * 32768 * (4 * 2048 + 3 * 768) / rates.memory_bytes_per_s
    measured = rates.curves.experts["bf16"].latency_s(ROWS * EXPERTS, 2048, 768, 1, EXPERTS)
    assert up + down + passes == pytest.approx(measured / rates.efficiency)


@pytest.mark.parametrize("role", ["dgrad", "wgrad"])
def test_the_backward_products_are_slowed_down_alike(role):
    rates = _rates("dgx-h100")
    forward = grouped_time(_product("forward"), rates) / matmul_time(_product("forward"), rates)
    backward = grouped_time(_product(role), rates) / matmul_time(_product(role), rates)
    assert backward == pytest.approx(forward)
    assert forward > 1.2


def test_a_layer_is_not_faster_than_dense_multiplies():
    # two large experts: their layer comes out at the rate of dense multiplies, and the passes are counted apart
    rates = _rates("dgx-h100")
    large = Matmul(2048, 2 * 32768, 6144, "bf16", "forward", 1, layer=(6144, 32768))
    assert grouped_time(large, rates) == matmul_time(large, rates)


def test_devices_without_measured_layers_keep_the_dense_rate():
    rates = _rates("dgx-h100")
    without = replace(rates, curves=replace(rates.curves, experts={}))
    work = _product("forward")
    assert grouped_time(work, without) == matmul_time(work, without)


def test_a_newer_device_takes_the_shape_dependence_of_its_family():
    # GB300 was not measured: GB200's residual over the same bf16 peak and bandwidth
    older, newer = (_rates(name).curves.experts["bf16"] for name in ("gb200-nvl72", "gb300-nvl72"))
    assert newer.latency_s(4096, 2048, 768, 8, 16) == pytest.approx(older.latency_s(4096, 2048, 768, 8, 16))
