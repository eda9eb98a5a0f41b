"""Contention between groups of a dragonfly in compiled form: by hand, and beside a model of every link."""

from dataclasses import replace

import numpy as np
import pytest

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.network.crossing import crossing_factor, crossings, fullest, group_pair_bytes_per_s
from towtank.simulator.network.job import JobNetwork, adapted_rings, contention
from towtank.simulator.network.machine import interconnect, node_fabric
from towtank.simulator.network.placement import group_members, place_nodes
from towtank.simulator.plan import Plan
from towtank.simulator.predict import predict


def test_crossings_by_hand() -> None:
    # 16 devices, four a group: rings of four at stride 4 go 0 -> 1 -> 2 -> 3 -> 0, four of them
    count = crossings(16, [(4, 4)], 4, 5)
    expected = np.zeros((5, 5))
    for group in range(4):
        expected[group, (group + 1) % 4] = 4
    assert (count == expected).all()
    # rings of eight neighbours: one edge from one group to the next and one back
    count = crossings(16, [(8, 1)], 4, 4)
    assert count[0, 1] == count[1, 0] == count[2, 3] == count[3, 2] == 1
    assert count.sum() == 4


def test_detours_spread_what_goes_to_one_group() -> None:
    # every group sends 6 to the next one of 5: (1 - s) 6 direct, s (6 + 6) / 3 on pairs at both ends, 0 of its own
    count = 6.0 * np.roll(np.eye(5), 1, axis=1)
    # s = 1: 4 on the four other pairs of a group; s = 9/16: 2.625 direct and 2.25; best 10/16: 2.25 and 2.5
    assert fullest(count) == pytest.approx(min(max(6 * (1 - s / 16), 4 * s / 16) for s in range(17)))
    assert fullest(count) == pytest.approx(2.5)
    # two groups have no detour
    assert fullest(np.array([[0.0, 3.0], [3.0, 0.0]])) == 3.0


def test_cables_of_a_machine() -> None:
    # four links of 25 GB/s; LUMI: 0.93 of 124 nodes x 100 GB/s over 23 other groups
    assert group_pair_bytes_per_s(load_machine("frontier")) == pytest.approx(100e9)
    assert group_pair_bytes_per_s(load_machine("lumi-g")) == pytest.approx(0.93 * 124 * 100e9 / 23)
    assert group_pair_bytes_per_s(load_machine("perlmutter")) is None
    assert group_pair_bytes_per_s(load_machine("dgx-h100")) is None


def test_nothing_contends_inside_a_group_or_where_cables_are_unknown() -> None:
    frontier = load_machine("frontier")
    assert crossing_factor(frontier, 1024, ((1024, 1),), 40e9) == 1.0
    assert crossing_factor(frontier, 8192, ((128, 8),), 5e9) == 1.0
    assert crossing_factor(load_machine("perlmutter"), 4096, ((8, 512),), 20e9) == 1.0


@pytest.mark.parametrize(("devices", "dimensions"), [(8192, (8, 1024)), (8192, (16, 512)), (16384, (64, 16))])
def test_against_the_model_of_every_link(devices: int, dimensions: tuple[int, int]) -> None:
    machine = load_machine("frontier")
    nominal = 5e9
    compiled = crossing_factor(machine, devices, (dimensions,), nominal)
    nodes = place_nodes("contiguous", devices // 8, 9856)
    network = JobNetwork(interconnect(machine, efficiency=0.4), node_fabric(machine), nodes)
    rings, _ = adapted_rings(network, group_members(devices, [dimensions]))
    found = nominal / float(contention(network, [rings]).together_bytes_per_s.min())
    # detours lie less evenly on links than on pairs of groups
    assert compiled == pytest.approx(found, rel=0.15)
    assert compiled <= found * (1 + 1e-9)


def test_wider_cables_never_slow_rings() -> None:
    machine = load_machine("frontier")
    factors = [
        crossing_factor(
            replace(machine, network=replace(machine.network, group_links=links)), 16384, ((16, 1024),), 5e9
        )
        for links in (1, 2, 4, 8)
    ]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == pytest.approx(2 * factors[1]) and factors[-1] == 1.0


def test_a_pair_of_pipeline_ends_is_no_family_of_rings() -> None:
    # tied embeddings join first and last stage, whose stride need not tile the devices
    the_plan = Plan(tensor_x=8, data=6, pipeline=64, global_batch=384, recompute="full")
    model = replace(load_model("gpt-80b"), num_layers=64, tied_embeddings=True)
    assert predict(model, "frontier", the_plan, stack="megatron-2021").step_time_s > 0
