"""Groups of a job on a machine, and which costs stand for it."""

from statistics import median

import pytest

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import list_machines, load_machine
from towtank.simulator.network.benchmark import JobError, setting
from towtank.simulator.network.collectives import Group, Links, choose
from towtank.simulator.network.libraries import fabric_cost, library, network_cost
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
    silent = {"summit", "jean-zay-v100", "tpu-v4-pod", "tpu-v5p-pod"}
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


# size, devices, seconds: all-reduce of L40S over PCIe in a node (ai-dynamo/aiconfigurator, l40s, NCCL 2.27.3)
L40S = [
    (512, 2, 7.7e-6), (512, 4, 11.9e-6), (512, 8, 22.6e-6), (32768, 2, 9.1e-6), (2**20, 2, 74.8e-6),
    (2**22, 2, 221.5e-6), (2**24, 2, 850.4e-6), (2**26, 2, 3358.8e-6), (2**28, 2, 13373e-6), (2**29, 2, 26700e-6),
]  # fmt: skip


def test_pcie_beside_the_measurements_of_another_card() -> None:
    errors = [
        choose(
            "all_reduce", num_bytes, Group(size, 1, 32e9), Links(fabric_cost("pcie4")), library("nccl")
        ).time_s
        / measured
        - 1
        for num_bytes, size, measured in L40S
    ]
    assert median(abs(error) for error in errors) < 0.05 and max(abs(error) for error in errors) < 0.30


def test_pcie_nodes_have_the_rates_of_their_profile() -> None:
    machine = load_machine("a100-pcie-node:nodes=2")
    for size, measured in ((2, 20.2e9), (4, 20.7e9), (8, 12.4e9)):
        found = setting(machine, 1, group_members(8, [(size, 1)]))
        answer = found.answer("all_reduce", 2.0**34)
        assert answer.bus_bytes_per_s == pytest.approx(measured, rel=0.01)


def test_tiles_of_aurora() -> None:
    machine = load_machine("aurora")
    # two tiles of a module: 76 % of their link; all twelve: what FSDP runs got; three: through the host
    for size, expected in ((2, 0.76 * 185e9), (12, 25e9), (3, 1.1e9)):
        found = setting(machine, 1, group_members(12, [(size, 1)]))
        assert found.library.name == "oneccl"
        assert found.answer("all_reduce", 2.0**36).bus_bytes_per_s == pytest.approx(expected, rel=0.02)
    # 24 tiles on two nodes: an exchange inside at 25 GB/s, then a twelfth of the array over the interface that two
    # tiles share, both twice
    two = setting(machine, 2, group_members(24, [(24, 1)]))
    interface = 0.8 * 25e9 / 2
    seconds = 2 * 2.0**36 * (11 / 12 / 25e9 + 1 / 2 / 12 / interface)
    expected = 2 * (23 / 24) * 2.0**36 / seconds
    assert two.answer("all_reduce", 2.0**36).bus_bytes_per_s == pytest.approx(expected, rel=0.005)


def test_links_without_a_published_cost_are_refused() -> None:
    for name, message in (
        ("tpu-v5p-pod", "no collective library of Google"),
        ("summit", "links between its devices"),
    ):
        with pytest.raises(UnknownFigure, match=message):
            machine = load_machine(name)
            setting(machine, 2, group_members(2 * machine.node.devices, [(2 * machine.node.devices, 1)]))
