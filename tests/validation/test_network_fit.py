"""Fits to times of which the answer is known."""

import numpy as np
import pytest

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.network.benchmark import Setting, setting
from towtank.simulator.network.libraries import Collective
from towtank.simulator.network.matching import Scale
from towtank.simulator.network.placement import group_members
from towtank.validation.network_fit import compare, fit, median_error

SIZES = [2.0**power for power in range(13, 34)]


def _setting(machine: str, nodes: int) -> Setting:
    profile = load_machine(machine)
    devices = nodes * profile.node.devices
    return setting(profile, nodes, group_members(devices, [(devices, 1)]))


def _times(
    where: Setting, collective: Collective, scale: Scale, sizes: list[float]
) -> list[tuple[float, float]]:
    taken = where.scaled(scale)
    return [(size, taken.choice(collective, size).time_s) for size in sizes]


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("collective", ["all_reduce", "all_gather"])
def test_known_factors_are_found(nodes: int, collective: Collective) -> None:
    where = _setting("dgx-a100", nodes)
    rows = _times(where, collective, Scale(2.0, 0.8), SIZES)
    found = fit(where, collective, rows)
    assert found.latency == pytest.approx(2.0, rel=0.01)
    assert found.bandwidth == pytest.approx(0.8, rel=0.01)
    assert median_error(found.rows) < 0.005 < median_error(compare(where, collective, rows))


def test_odd_rows_do_not_decide() -> None:
    where = _setting("dgx-a100", 4)
    rows = _times(where, "all_reduce", Scale(1.5, 0.7), SIZES)
    for odd in (3, 12):
        rows[odd] = (rows[odd][0], 4 * rows[odd][1])
    found = fit(where, "all_reduce", rows)
    assert (found.latency, found.bandwidth) == (pytest.approx(1.5, rel=0.05), pytest.approx(0.7, rel=0.05))


def test_what_rows_do_not_tell_is_left_alone() -> None:
    where = _setting("dgx-a100", 4)
    large = fit(
        where, "all_gather", _times(where, "all_gather", Scale(1.0, 0.9), [2.0**36, 2.0**37, 2.0**38])
    )
    assert large.latency is None and large.bandwidth == pytest.approx(0.9, rel=0.01)
    small = fit(where, "all_gather", _times(where, "all_gather", Scale(1.3, 1.0), [8.0, 16.0, 32.0]))
    assert small.bandwidth is None and small.latency == pytest.approx(1.3, rel=0.01)


def test_no_efficiency_above_one() -> None:
    where = _setting("dgx-a100", 4)
    found = fit(where, "all_gather", _times(where, "all_gather", Scale(1.0, 3.0), SIZES))
    efficiency = where.machine.network.efficiency
    assert found.bandwidth is not None and efficiency is not None
    assert found.bandwidth * efficiency <= 1 + 1e-9


def test_a_fit_needs_three_rows() -> None:
    where = _setting("dgx-a100", 1)
    with pytest.raises(ValueError, match="3 rows or more, got 2"):
        fit(where, "all_reduce", [(1.0, 1.0), (2.0, float(np.e))])
