"""The search against random order on recorded times."""

import pytest

from towtank.autotune.tiles.captures import shipped
from towtank.autotune.tiles.fit import recorded_cpu
from towtank.autotune.tiles.replay import replays


@pytest.mark.parametrize("name", shipped())
def test_search_needs_half_the_measurements_of_random_order_or_fewer(name):
    for each in replays(name, recorded_cpu()):
        assert each.search <= each.random / 2, each
