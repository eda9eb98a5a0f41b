"""Placement and traffic of other jobs: by hand, beside a model of every link, and what is refused."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.errors import PlanError
from towtank.simulator.network.crossing import crossing_factor
from towtank.simulator.network.job import JobNetwork, adapted_rings, contention
from towtank.simulator.network.machine import interconnect, node_fabric
from towtank.simulator.network.placement import Placed, group_members
from towtank.simulator.network.routed_crossing import leaves_group, routed_factor
from towtank.simulator.network.surroundings import (
    Surroundings,
    check_surroundings,
    groups_of,
    surroundings_text,
)

SCATTERED, RANDOM = Placed("scattered", 0.5, 1), Placed("random", 0.0, 3)


def test_two_groups_have_no_detours_so_the_cables_are_a_division() -> None:
    # 256 nodes in two groups, pairs of nodes 128 apart: 1,024 rings of 5 GB/s over 100 GB/s, each way
    machine = load_machine("frontier:nodes=256")
    pairs, rate = ((2, 1024),), 5e9
    assert routed_factor(machine, 2048, pairs, rate, Surroundings()) == pytest.approx(1024 * 5 / 100)
    half = Surroundings(background={"global": 0.5})
    assert routed_factor(machine, 2048, pairs, rate, half) == pytest.approx(2 * 1024 * 5 / 100)
    # interfaces are in the rate of the ring, not here
    interface = Surroundings(background={"interface": 0.5})
    assert routed_factor(machine, 2048, pairs, rate, interface) == pytest.approx(1024 * 5 / 100)


def test_a_fat_tree_by_hand() -> None:
    # two units of 32 nodes: 256 rings of 20 GB/s leave a unit of 32 x 400 GB/s, tapered to a half
    machine = load_machine("dgx-h100:nodes=64:taper=0.25")
    found = routed_factor(machine, 512, ((2, 256),), 20e9, Surroundings())
    assert found == pytest.approx(256 * 20 / (0.25 * 32 * 400))
    whole = load_machine("dgx-h100:nodes=64")
    assert routed_factor(whole, 512, ((2, 256),), 20e9, Surroundings()) == 1.0


@pytest.mark.parametrize("placed", [Placed(), SCATTERED, RANDOM], ids=lambda placed: placed.kind)
@pytest.mark.parametrize(
    ("name", "dimensions"), [("frontier", (64, 64)), ("frontier", (8, 512)), ("lumi-g", (64, 64))]
)
def test_against_the_model_of_every_link(name: str, dimensions: tuple[int, int], placed: Placed) -> None:
    devices = 4096
    machine, nominal = load_machine(name), 5e9
    around = Surroundings(placed, {"global": 0.8})
    compiled = routed_factor(machine, devices, (dimensions,), nominal, around)
    outside = interconnect(machine, efficiency=0.4)
    busy = around.busy_tiers(outside.topology.tiers)
    nodes = around.nodes(machine, devices // 8)
    network = JobNetwork(outside, node_fabric(machine), nodes, busy=busy)
    rings, _ = adapted_rings(network, group_members(devices, [dimensions]))
    found = nominal / float(contention(network, [rings]).together_bytes_per_s.min())
    assert compiled == pytest.approx(found, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(
    share=st.floats(0, 0.95),
    more=st.floats(0, 0.04),
    kind=st.sampled_from(["contiguous", "scattered", "random"]),
)
def test_more_background_never_makes_rings_faster(share: float, more: float, kind: str) -> None:
    machine = load_machine("frontier")
    placed = Placed(kind, 0.5 if kind == "scattered" else 0.0, 1)  # type: ignore[arg-type]
    less, much = (
        routed_factor(machine, 8192, ((8, 1024),), 5e9, Surroundings(placed, {"global": each}))
        for each in (share, share + more)
    )
    assert 1 <= less <= much
    if kind == "contiguous":
        assert less >= crossing_factor(machine, 8192, ((8, 1024),), 5e9)


def test_rings_leave_a_group_where_their_nodes_do() -> None:
    machine = load_machine("jupiter-booster")
    # 64 nodes of a group of 240: in order they stay, drawn from all 25 groups they do not
    assert not leaves_group(machine, 256, ((64, 4),), Surroundings())
    assert leaves_group(machine, 256, ((64, 4),), Surroundings(RANDOM))
    assert not leaves_group(machine, 256, ((4, 1),), Surroundings(RANDOM))


def test_nodes_and_groups_of_a_placement() -> None:
    machine = load_machine("frontier")
    nodes = Surroundings(SCATTERED).nodes(machine, 1024)
    assert (np.diff(nodes) > 0).all() and len(nodes) == 1024
    # half of the nodes are free: 1,024 of them lie in about the first 2,048, 16 groups of 128
    assert 14 <= groups_of(machine, nodes) <= 18
    assert groups_of(machine, Surroundings().nodes(machine, 129)) == 2
    text = surroundings_text(Surroundings(SCATTERED, {"global": 0.3, "interface": 0.1}), machine, 1024)
    assert text["placement"].startswith(
        "1,024 of 9,856 nodes, scattered where other jobs hold 50 % of the machine"
    )
    assert (
        "30 % of the links between groups" in text["background"]
        and "10 % of the interfaces" in text["background"]
    )
    assert surroundings_text(Surroundings(), machine, 1024) == {}


def test_every_fault_is_told() -> None:
    machine = load_machine("frontier")
    wrong = Surroundings(Placed("scattered", 1.5, -1), {"globl": 0.3, "local": 1.0})  # type: ignore[dict-item]
    with pytest.raises(PlanError) as raised:
        check_surroundings(wrong, machine, 8, flows=True)
    assert len(raised.value.faults) == 4
    assert "did you mean 'global'" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "around", "message"),
    [
        ("frontier", Surroundings(Placed("scattered", 0.95)), "needs 1000 nodes, but 493 of 9856 are free"),
        (
            "dgx-h100",
            Surroundings(Placed("random")),
            "any number of nodes; say how many, like dgx-h100:nodes=",
        ),
        (
            "frontier",
            Surroundings(background={"local": 0.2}),
            "only flows follow the links inside of a group",
        ),
    ],
)
def test_what_does_not_fit_is_refused(name: str, around: Surroundings, message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        check_surroundings(around, load_machine(name), 1000, flows=False)


def test_what_nobody_has_published_is_refused() -> None:
    perlmutter, jupiter = load_machine("perlmutter"), load_machine("jupiter-booster")
    random, traffic = Surroundings(RANDOM), Surroundings(background={"global": 0.3})
    for around in (random, traffic):
        with pytest.raises(UnknownFigure, match=r"network.taper.*perlmutter:taper=0.5"):
            check_surroundings(around, perlmutter, 256, flows=False)
    check_surroundings(random, load_machine("perlmutter:taper=0.5"), 256, flows=False)
    # JUPITER: what rings lose between groups was measured beside other jobs; the placement says which rings lose it
    check_surroundings(random, jupiter, 256, flows=False)
    for around, flows in ((random, True), (traffic, False)):
        with pytest.raises(UnknownFigure, match=r"network.taper"):
            check_surroundings(around, jupiter, 256, flows=flows)
    # inside of one group nothing is needed
    check_surroundings(traffic, perlmutter, 128, flows=False)
    for name in ("tpu-v5p-pod:nodes=64", "aws-p5-h100:nodes=64", "polaris"):
        with pytest.raises(UnknownFigure, match="groups of the network"):
            check_surroundings(random, load_machine(name), 16, flows=False)


def test_a_taper_of_ones_own_replaces_cables_and_measured_losses() -> None:
    machine = load_machine("frontier:taper=0.3")
    assert (machine.network.taper, machine.network.group_links) == (0.3, None)
    assert machine.sources["network.taper"].text.startswith("chosen in the reference")
    assert load_machine("jupiter-booster:taper=0.5").network.group_crossing is None
    narrow, wide = (
        routed_factor(
            load_machine(f"jupiter-booster:taper={taper}"), 8192, ((8, 1024),), 20e9, Surroundings()
        )
        for taper in (0.1, 0.2)
    )
    assert narrow == pytest.approx(2 * wide) and wide > 1
    plain = load_machine("frontier")
    assert replace(machine, network=plain.network, sources=plain.sources) == plain
