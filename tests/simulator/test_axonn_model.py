"""AxoNN's communication model against numbers worked out apart from it, and its properties."""

import math
from collections.abc import Mapping
from dataclasses import astuple, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import load_machine
from towtank.hardware_profiles.records import Device, Fabric, Machine, Network, Node
from towtank.simulator.axonn import (
    FULL_RECOMPUTE_REGATHER,
    NO_RECOMPUTE,
    AxisBandwidths,
    FullyConnected,
    Grid,
    Workload,
    axis_bandwidths,
    bandwidth,
    feasible_grids,
    gpt_block,
    layer_times,
    layer_traffic,
    minimum_tensor_product,
    model_block,
    rank_grids,
    theoretical_bandwidth,
    workload_times,
)
from towtank.simulator.errors import PlanError
from towtank.simulator.models.records import Attention, Experts, Mlp, ModelSpec
from towtank.simulator.plan import Dimension, Plan

GOLDEN = Path(__file__).parents[1] / "golden" / "axonn"
WORKED = yaml.safe_load((GOLDEN / "worked_numbers.yaml").read_text())
TABLES = yaml.safe_load((GOLDEN / "bandwidths.yaml").read_text())
GIBIBYTE = 1024**3
SCRIPT_SECONDS_PER_SECOND = 1e9 / GIBIBYTE

DEVICE = Device("test", "", "GPU", "", "", {}, None, None, None, None, None, "test", None, sources={})


def make_machine(
    *,
    devices: int = 4,
    fabric: Fabric = "mesh",
    pair: tuple[float | None, float | None] = (150e9, 150e9),
    device_bandwidth: float | None = None,
    injection: float | None = 100e9,
    num_nodes: int | None = 2688,
    table: Mapping[tuple[int, int], float] | None = None,
) -> Machine:
    """A machine like Alps (four GH200 in an NVLink mesh, four NICs of 25 GB/s) unless told otherwise."""
    node = Node(devices, fabric, *pair, device_bandwidth, None, 4, 25e9, injection)
    network = Network("slingshot-11", "dragonfly", None, None, None, None, None)
    return Machine(
        "test", "", "", DEVICE, num_nodes, node, network, None, None, None, table or {}, sources={}
    )


def expand(rules: Mapping[str, Any]) -> dict[tuple[int, int], float]:
    powers = [2**exponent for exponent in range(17)]
    return {
        (preceding, own): 1e9 * row.get(own, row["rest"])
        for preceding in powers
        for row in [rules["rows"].get(preceding, rules["last"])]
        for own in powers[1:]
        if preceding * own <= rules["node_devices"] * rules["num_nodes"]
    }


MACHINES = {
    name: make_machine(devices=rules["node_devices"], num_nodes=rules["num_nodes"], table=expand(rules))
    for name, rules in TABLES.items()
}


def make_grid(letters: list[int]) -> Grid:
    r, c, d, data = letters
    return Grid.from_axonn_letters(r=r, c=c, d=d, data=data)


def make_workload(hidden: int = 7168, sequences: int = 8192, num_layers: int = 1, **more: Any) -> Workload:
    return Workload.gpt(
        num_layers=num_layers, hidden=hidden, sequences=sequences, sequence_length=2048, **more
    )


# Worked numbers


@pytest.mark.parametrize("case", WORKED["blocks"], ids=lambda case: case["machine"])
def test_seconds_of_one_block(case: Mapping[str, Any]) -> None:
    grid = make_grid(case["grid"])
    bandwidths = axis_bandwidths(MACHINES[case["machine"]], grid)
    workload = make_workload(case["hidden"], case["sequences"])
    script = workload_times(workload, grid, bandwidths, compat=True).total_s
    right = workload_times(workload, grid, bandwidths).total_s * SCRIPT_SECONDS_PER_SECOND
    assert script == pytest.approx(case["script"], abs=5e-11)
    digits = len(str(case["right"])) - 2
    assert round(right, digits) == case["right"]


@pytest.mark.parametrize("case", WORKED["qkv"], ids=lambda case: case["machine"])
@pytest.mark.parametrize("axis", ["x", "y", "z", "data"])
def test_collectives_of_a_qkv_layer(case: Mapping[str, Any], axis: str) -> None:
    grid, workload = make_grid(case["grid"]), make_workload(case["hidden"])
    qkv = workload.block[0]
    traffic = layer_traffic(qkv, grid, workload)
    times = layer_times(qkv, grid, workload, axis_bandwidths(MACHINES[case["machine"]], grid), compat=True)
    moved = getattr(traffic, f"{axis}_bytes") / GIBIBYTE
    assert moved == pytest.approx(case["gibibytes"][axis], rel=1e-3)
    assert f"{getattr(times, f'{axis}_s') * 1e3:.3g}" == f"{case['milliseconds'][axis]:.3g}"


@pytest.mark.parametrize("case", WORKED["rankings"], ids=lambda case: case["model"])
def test_ranking(case: Mapping[str, Any]) -> None:
    workload = make_workload(case["hidden"], case["sequences"], case["num_layers"])
    ranking = rank_grids(
        workload,
        case["devices"],
        MACHINES[case["machine"]],
        min_tensor=case["min_tensor"],
        top=len(case["best"]),
    )
    assert [entry.grid for entry in ranking.grids] == [make_grid(best["grid"]) for best in case["best"]]
    for entry, best in zip(ranking.grids, case["best"], strict=True):
        seconds = entry.times.total_s * SCRIPT_SECONDS_PER_SECOND
        assert seconds == pytest.approx(best["seconds"], rel=5e-4)
    assert ranking.num_feasible == case.get("num_feasible", ranking.num_feasible)
    assert (ranking.bandwidths, ranking.assumptions) == ("measured", ())


@pytest.mark.parametrize(("billions", "product"), WORKED["min_tensor"].items())
def test_smallest_tensor_product(billions: int, product: int) -> None:
    assert minimum_tensor_product(billions * 1e9) == product


def test_published_products_leave_one_interval_of_limits() -> None:
    table = WORKED["min_tensor"].items()
    largest_that_fits = max(18e9 * billions / product for billions, product in table)
    smallest_that_does_not = min(18e9 * billions / (product / 2) for billions, product in table)
    assert (largest_that_fits, smallest_that_does_not) == (28.125e9, 33.75e9)


def test_products_at_the_edge_of_a_limit() -> None:
    assert minimum_tensor_product(20e9, state_bytes_per_device=22.5e9) == 16
    assert minimum_tensor_product(20e9 + 1, state_bytes_per_device=22.5e9) == 32
    assert minimum_tensor_product(1) == 1
    with pytest.raises(PlanError, match="parameters must be positive and finite, but is 0"):
        minimum_tensor_product(0)


# What compat changes


def test_compat_swaps_sizes_of_transposed_layers_only() -> None:
    grid, workload = Grid(x=2, y=4, z=1, data=1), make_workload()
    qkv, dense, _, down = workload.block
    for layer in (qkv, dense):
        assert layer_traffic(layer, grid, workload, compat=True) == layer_traffic(layer, grid, workload)
    right, script = layer_traffic(down, grid, workload), layer_traffic(down, grid, workload, compat=True)
    assert script.x_bytes == 4 * right.x_bytes
    assert script.y_bytes == right.y_bytes / 4
    assert (script.z_bytes, script.data_bytes) == (right.z_bytes, right.data_bytes)


def test_units_make_the_script_seven_percent_short() -> None:
    grid, workload = Grid(x=1, y=1, z=8, data=4), make_workload()
    bandwidths = axis_bandwidths(MACHINES["perlmutter"], grid)
    right, script = (workload_times(workload, grid, bandwidths, compat=compat) for compat in (False, True))
    assert right.total_s / script.total_s == pytest.approx(1.073741824, rel=1e-12)


# Special grids


@given(st.integers(1, 10), st.integers(0, 10))
def test_only_shards_without_x_and_y(z_exponent: int, data_exponent: int) -> None:
    grid, workload = Grid(x=1, y=1, z=2**z_exponent, data=2**data_exponent), make_workload()
    traffic = [layer_traffic(layer, grid, workload) for layer in workload.block]
    assert sum(t.x_bytes + t.y_bytes for t in traffic) == 0
    # ZeRO-3: two gathers and a reduce-scatter of 12 h^2 bf16 weights, whatever the batch.
    weights = 12 * 7168**2
    assert sum(t.z_bytes for t in traffic) == pytest.approx(3 * (grid.z - 1) / grid.z * weights * 2)
    expected = 2 * (grid.data - 1) / grid.data * weights / grid.z * 4
    assert sum(t.data_bytes for t in traffic) == pytest.approx(expected)


def test_x_alone_is_megatron_tensor_parallelism() -> None:
    grid, workload = Grid(x=8, y=1, z=1, data=1), make_workload(hidden=1024, sequences=4)
    qkv, dense, up, down = (layer_traffic(layer, grid, workload) for layer in workload.block)
    all_reduce = 2 * 7 / 8 * 4 * 2048 * 1024 * 2
    # Backward, before the pair, once; forward, after the pair, twice since it is recomputed.
    assert [t.x_bytes for t in (qkv, dense, up, down)] == [all_reduce, 2 * all_reduce] * 2
    assert sum(t.y_bytes + t.z_bytes + t.data_bytes for t in (qkv, dense, up, down)) == 0


def test_one_device_sends_nothing() -> None:
    workload = make_workload()
    times = workload_times(workload, Grid(1, 1, 1, 1), AxisBandwidths(*[math.inf] * 4))
    assert astuple(times) == (0, 0, 0, 0)


# Properties

degrees = st.sampled_from([1, 2, 4, 8, 16])
grids = st.builds(Grid, x=degrees, y=degrees, z=degrees, data=degrees)
layers = st.builds(
    FullyConnected, st.just("layer"), st.integers(1, 2**16), st.integers(1, 2**16), transposed=st.booleans()
)
rates = st.floats(1e9, 1e12)
bandwidths_of_axes = st.builds(AxisBandwidths, rates, rates, rates, rates)


@given(layers, grids)
def test_transposing_swaps_x_and_y(layer: FullyConnected, grid: Grid) -> None:
    workload = make_workload()
    normal = layer_traffic(replace(layer, transposed=False), grid, workload)
    mirrored = layer_traffic(replace(layer, transposed=True), replace(grid, x=grid.y, y=grid.x), workload)
    assert mirrored == replace(normal, x_bytes=normal.y_bytes, y_bytes=normal.x_bytes)


@given(
    layers,
    grids,
    bandwidths_of_axes,
    st.sampled_from(["x", "y", "z", "data"]),
    st.floats(1, 10),
    st.booleans(),
)
def test_more_bandwidth_is_never_slower(
    layer: FullyConnected, grid: Grid, bandwidths: AxisBandwidths, axis: str, factor: float, compat: bool
) -> None:
    faster = replace(bandwidths, **{axis: getattr(bandwidths, axis) * factor})
    workload = make_workload()
    before, after = (layer_times(layer, grid, workload, b, compat=compat) for b in (bandwidths, faster))
    assert after.total_s <= before.total_s
    assert getattr(after, f"{axis}_s") == pytest.approx(getattr(before, f"{axis}_s") / factor)


@given(layers, grids)
def test_batch_scales_activations_and_micro_batches_scale_shards(layer: FullyConnected, grid: Grid) -> None:
    base = layer_traffic(layer, grid, make_workload(sequences=4096))
    larger = layer_traffic(layer, grid, make_workload(sequences=8192))
    split = layer_traffic(layer, grid, make_workload(sequences=4096, num_micro_batches=4))
    assert larger == replace(base, x_bytes=2 * base.x_bytes, y_bytes=2 * base.y_bytes)
    assert split == replace(base, z_bytes=4 * base.z_bytes)


def test_passes_of_each_way_to_recompute() -> None:
    grid, qkv = Grid(x=2, y=2, z=2, data=2), gpt_block(7168)[0]
    full, regather, none = (
        layer_traffic(qkv, grid, workload)
        for workload in (
            make_workload(), make_workload(passes=FULL_RECOMPUTE_REGATHER), make_workload(passes=NO_RECOMPUTE)
        )
    )  # fmt: skip
    assert regather == replace(full, z_bytes=full.z_bytes * 4 / 3)
    assert none == replace(full, y_bytes=full.y_bytes / 2, z_bytes=full.z_bytes * 2 / 3)


def test_ranking_is_sorted_and_a_longer_one_begins_like_a_shorter_one() -> None:
    workload = make_workload(num_layers=32)
    short = rank_grids(workload, 256, MACHINES["frontier"], top=5)
    long = rank_grids(workload, 256, MACHINES["frontier"], top=10_000)
    assert long.grids[:5] == short.grids
    assert len(long.grids) == long.num_feasible == short.num_feasible
    assert all(a.times.total_s <= b.times.total_s for a, b in pairwise(long.grids))


# Grids


def test_letters_name_roles() -> None:
    grid = Grid.from_axonn_letters(r=2, c=4, d=8, data=16)
    assert grid == Grid(x=2, y=4, z=8, data=16)
    assert (grid.tensor, grid.devices) == (64, 1024)
    assert grid.axonn_letters() == {"G_intra_r": 2, "G_intra_c": 4, "G_intra_d": 8, "G_data": 16}
    plan = grid.apply_to(Plan(global_batch=8192))
    assert (plan.num_devices, plan.global_batch) == (1024, 8192)
    assert Grid.from_plan(plan) == grid


def test_grid_names_all_wrong_degrees() -> None:
    with pytest.raises(PlanError) as caught:
        Grid(x=0, y=1, z=-2, data=1)
    assert len(caught.value.faults) == 2
    assert "degree x must be at least 1, but is 0" in str(caught.value)


def test_plans_that_the_grid_cannot_express() -> None:
    order: tuple[Dimension, ...] = ("tensor_x", "tensor_y", "context", "tensor_z", "data", "pipeline")
    with pytest.raises(PlanError) as caught:
        Grid.from_plan(Plan(pipeline=2, context=2, zero_stage=3, rank_order=order))
    assert len(caught.value.faults) == 4
    assert "rank_order nests tensor_x, tensor_y, tensor_z, data" in str(caught.value)


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10))
def test_feasible_grids_are_those_of_a_search_over_all(
    devices_exp: int, sequences_exp: int, min_exp: int
) -> None:
    devices, sequences, min_tensor = 2**devices_exp, 3 * 2**sequences_exp, 2**min_exp
    found = list(feasible_grids(devices, sequences, min_tensor))
    powers = [2**exponent for exponent in range(devices_exp + 1)]
    expected = {
        Grid(x, y, z, devices // (x * y * z))
        for x in powers
        for y in powers
        for z in powers
        if min_tensor <= x * y * z <= devices and sequences % (devices // (x * y)) == 0
    }
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_data_may_have_an_odd_factor() -> None:
    grids = list(feasible_grids(6144, 6144 * 2, min_tensor=2048))
    assert {grid.data for grid in grids} == {3}


# Bandwidths


def test_measured_bandwidth_is_looked_up() -> None:
    frontier = MACHINES["frontier"]
    assert bandwidth(frontier, 2, 4) == 72e9
    assert bandwidth(frontier, 64, 2) == 5e9
    assert bandwidth(frontier, 3, 1) == math.inf
    with pytest.raises(UnknownFigure, match="no entry for a group of 3 devices after 2 inner ones"):
        bandwidth(frontier, 2, 3, "measured")
    assert bandwidth(frontier, 2, 3) == theoretical_bandwidth(frontier, 2, 3) == 50e9


@pytest.mark.parametrize("name", TABLES)
def test_profile_holds_the_published_table(name: str) -> None:
    machine = load_machine(name)
    assert machine.measured_bus_bandwidth_bytes_per_s == expand(TABLES[name])
    assert (machine.node.devices, machine.num_nodes) == (
        TABLES[name]["node_devices"],
        TABLES[name]["num_nodes"],
    )


def test_ring_between_rack_sized_nodes_is_held_back_by_its_devices() -> None:
    rack = make_machine(devices=72, fabric="switch", device_bandwidth=900e9, injection=72 * 50e9)
    assert [theoretical_bandwidth(rack, preceding, 16) for preceding in (1, 4, 8)] == [900e9, 900e9, 450e9]


@pytest.mark.parametrize(
    ("preceding", "own", "expected"),
    [
        (1, 1, math.inf),
        (1, 2, 150e9),  # one link of the mesh
        (2, 2, 150e9),
        (1, 4, 450e9),  # three links
        (1, 8, 100e9),  # a ring alone on the NICs of its nodes
        (2, 4, 50e9),  # two rings share them
        (4, 2, 25e9),
        (64, 16, 25e9),  # no more than the devices of a node share them
    ],
)
def test_theoretical_bandwidth_of_a_mesh(preceding: int, own: int, expected: float) -> None:
    assert theoretical_bandwidth(make_machine(), preceding, own) == expected
    assert bandwidth(make_machine(), preceding, own) == expected


def test_theoretical_bandwidth_of_other_fabrics() -> None:
    switch = make_machine(devices=8, fabric="switch", pair=(None, None), device_bandwidth=450e9)
    gcds = make_machine(devices=8, fabric="hierarchy", pair=(200e9, 50e9))
    pcie = make_machine(fabric="pcie", pair=(25e9, 20e9))
    assert [theoretical_bandwidth(switch, 1, own) for own in (2, 8, 16)] == [450e9, 450e9, 100e9]
    assert [theoretical_bandwidth(gcds, *group) for group in ((1, 2), (1, 4), (4, 2))] == [200e9, 50e9, 50e9]
    assert theoretical_bandwidth(pcie, 1, 4) == 20e9


def test_group_that_straddles_nodes_counts_as_between_them() -> None:
    summit = make_machine(devices=6, injection=25e9, pair=(50e9, 50e9))
    assert theoretical_bandwidth(summit, 1, 2) == 50e9
    assert theoretical_bandwidth(summit, 1, 4) == 25e9


@pytest.mark.parametrize(
    ("machine", "own", "field"),
    [
        (make_machine(injection=None), 8, "node.injection_bytes_per_s"),
        (make_machine(pair=(None, None)), 2, "node.pair_bandwidth_min_bytes_per_s"),
        (make_machine(fabric="switch"), 2, "node.device_bandwidth_bytes_per_s"),
    ],
)
def test_unknown_figure_is_named(machine: Machine, own: int, field: str) -> None:
    with pytest.raises(UnknownFigure, match=field):
        theoretical_bandwidth(machine, 1, own)


def test_ranking_says_where_bandwidths_come_from() -> None:
    ranking = rank_grids(make_workload(sequences=6144), 6144, make_machine(), min_tensor=64)
    assert ranking.bandwidths == "theoretical"
    assert any("ring" in sentence for sentence in ranking.assumptions)
    forced = rank_grids(make_workload(), 64, MACHINES["perlmutter"], bandwidths="theoretical")
    assert forced.bandwidths == "theoretical"
    in_node = make_machine(table={(1, 2): 100e9, (1, 4): 300e9, (2, 2): 100e9})
    mixed = rank_grids(make_workload(), 64, in_node)
    assert (mixed.bandwidths, mixed.assumptions) == ("mixed", ranking.assumptions)
    assert rank_grids(make_workload(), 4, in_node).bandwidths == "measured"
    assert forced.grids[0].times != rank_grids(make_workload(), 64, MACHINES["perlmutter"]).grids[0].times


# Constraints and faults of rankings


def test_heads_leave_out_what_cannot_run() -> None:
    machine, workload = make_machine(num_nodes=None), make_workload(sequences=64)
    free = rank_grids(workload, 64, machine, top=10_000)
    heads = rank_grids(workload, 64, machine, top=10_000, heads=56)
    assert {entry.grid for entry in heads.grids} == {e.grid for e in free.grids if 56 % e.grid.x == 0}


def test_micro_batches_must_divide_over_data_and_z() -> None:
    workload = make_workload(sequences=64, num_micro_batches=16)
    ranking = rank_grids(workload, 64, make_machine(), top=10_000)
    assert max(entry.grid.data * entry.grid.z for entry in ranking.grids) == 4


def test_ranking_names_every_fault() -> None:
    with pytest.raises(PlanError) as caught:
        rank_grids(make_workload(sequences=0), 20_000, make_machine(), top=0, heads=0)
    text = str(caught.value)
    assert len(caught.value.faults) == 4
    assert "sequences must be at least 1" in text
    assert "top must be at least 1" in text
    assert "test has 10752 devices, but 20000 were asked for" in text


@pytest.mark.parametrize(
    ("workload", "arguments", "message"),
    [
        (make_workload(sequences=10, num_micro_batches=3), {"devices": 8}, "multiple of num_micro_batches 3"),
        (make_workload(), {"devices": 8, "min_tensor": 16}, "min_tensor 16 exceeds devices 8"),
        (make_workload(sequences=1024), {"devices": 3}, "take a power of two of devices"),
        (make_workload(sequences=1), {"devices": 4096, "heads": 7}, "7 heads and all features"),
    ],
)
def test_ranking_says_what_to_do(workload: Workload, arguments: Mapping[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        rank_grids(workload, machine=make_machine(), **arguments)


# Blocks of other models

LLAMA = ModelSpec(
    name="llama3-8b",
    num_layers=32,
    hidden=4096,
    vocab=128256,
    sequence=8192,
    attention=Attention(heads=32, kv_heads=8, head_dim=128),
    mlp=Mlp(hidden=14336, gated=True),
    experts=None,
    norm="rmsnorm",
    norm_bias=False,
    positions="rope",
    max_positions=0,
    tied_embeddings=False,
)


def test_block_of_a_dense_model() -> None:
    qkv, dense, up, down = model_block(LLAMA)
    assert (qkv.inputs, qkv.outputs) == (4096, 6144)
    assert (dense.inputs, dense.outputs) == (4096, 4096)
    assert (up.inputs, up.outputs) == (4096, 28672)
    assert (down.inputs, down.outputs) == (14336, 4096)
    assert [layer.transposed for layer in model_block(LLAMA)] == [False, True, False, True]


def test_block_of_a_gpt_is_the_published_one() -> None:
    gpt = replace(LLAMA, hidden=1024, attention=Attention(8, 8, 128), mlp=Mlp(4096, gated=False))
    shapes = [(layer.inputs, layer.outputs, layer.transposed) for layer in model_block(gpt)]
    assert shapes == [(layer.inputs, layer.outputs, layer.transposed) for layer in gpt_block(1024)]


def test_block_refuses_experts() -> None:
    with pytest.raises(PlanError, match="llama3-8b has experts"):
        model_block(replace(LLAMA, experts=Experts(num_experts=8, top_k=2, hidden=14336, gated=True)))
