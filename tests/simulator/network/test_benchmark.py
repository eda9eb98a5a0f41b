"""Groups of a job on a machine, and which costs stand for it."""

import pytest

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import list_machines, load_machine
from towtank.simulator.network.benchmark import JobError, setting
from towtank.simulator.network.libraries import network_cost
from towtank.simulator.network.matching import fabric_cost_of, library_of, network_cost_of
from towtank.simulator.network.placement import Placed, group_members


@pytest.mark.parametrize("name", list_machines())
def test_every_machine_answers_or_says_what_is_missing(name: str) -> None:
    machine = load_machine(name)
    devices = 4 * machine.node.devices
    try:
        found = setting(machine, 4, group_members(devices, [(devices, 1)]))
    except UnknownFigure as missing:
        assert machine.name in str(missing)
        return
    answer = found.answer("all_reduce", 2.0**30)
    injection = machine.node.injection_bytes_per_s
    assert injection is not None
    assert 0 < answer.bus_bytes_per_s <= 1.07 * injection  # B200 over EFA was fitted at 1.02
    assert answer.contention == pytest.approx(1) and answer.latency_share < 0.5


def test_most_machines_answer() -> None:
    silent = {"aurora", "a100-pcie-node", "summit", "jean-zay-v100", "tpu-v4-pod", "tpu-v5p-pod"}
    for name in set(list_machines()) - silent:
        machine = load_machine(name)
        assert library_of(machine).name, name
        reaches = [*fabric_cost_of(machine).reach.values(), network_cost_of(machine).reach]
        assert all(0 < reach <= 1.1 for reach in reaches), name  # B200 over EFA was fitted at 1.02


def test_costs_follow_the_figures_of_the_profile() -> None:
    efa, slow = network_cost("efa"), network_cost_of(load_machine("aws-p5-h100"))
    # the profile of P6 reaches 0.955 where the block was fitted at 1.02; that of P5 0.585
    assert slow.reach == pytest.approx(efa.reach * 0.585 / 0.955)
    assert slow.step_s == pytest.approx(dict(efa.step_s))
    assert network_cost_of(load_machine("frontier")).reach == pytest.approx(0.4)
    assert network_cost_of(load_machine("perlmutter")).reach == pytest.approx(0.8)


def test_libraries_by_vendor_and_network() -> None:
    found = {
        name: library_of(load_machine(name)).name for name in ("frontier", "alps", "aws-p5-h100", "aurora")
    }
    assert found == {"frontier": "rccl", "alps": "nccl", "aws-p5-h100": "nccl-efa", "aurora": "oneccl"}
    assert library_of(load_machine("alps"), "cray-mpich").name == "cray-mpich"


def test_nodes_of_one_dragonfly_group_need_no_taper() -> None:
    machine = load_machine("perlmutter")
    members = group_members(4 * 128, [(512, 1)])
    assert setting(machine, 128, members).outer_limit == "interface"
    with pytest.raises(UnknownFigure, match=r"network\.taper"):
        setting(machine, 128, members, Placed("random"))


def test_groups_across_half_of_a_node_are_refused() -> None:
    with pytest.raises(JobError, match="groups of 12 do not lie evenly on nodes of 8"):
        setting(load_machine("frontier"), 3, group_members(24, [(12, 1)]))
