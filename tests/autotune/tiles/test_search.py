"""The search on landscapes that are known."""

import math

import pytest

from towtank.autotune.tiles.correction import Correction
from towtank.autotune.tiles.search import Budget, key_of, search

TILES = [
    {"rows": rows, "depth": depth, "packed": packed}
    for rows in (1, 2, 4, 8)
    for depth in (16, 32, 64)
    for packed in (0, 1)
]


def truth(tile):
    """Best at 4, 64, packed: 1 ms; each step away costs 30 %."""
    steps = abs(math.log2(tile["rows"] / 4)) + abs(math.log2(tile["depth"] / 64)) + (1 - tile["packed"])
    return 1e-3 * 1.3**steps


def test_a_right_model_needs_one_measurement():
    found = search(TILES, truth, truth, Budget(trials=1))
    assert found.best == ({"rows": 4, "depth": 64, "packed": 1}, pytest.approx(1e-3))


def test_a_model_that_errs_alike_for_alike_tiles_is_set_right():
    def wrong(tile):  # thinks that 8 rows are fastest by far
        return truth(tile) * (0.6 if tile["rows"] == 8 else 1.0)

    found = search(TILES, wrong, truth, Budget(trials=6))
    assert found.best[0] == {"rows": 4, "depth": 64, "packed": 1}


def test_a_model_that_knows_nothing_still_ends_with_the_best_once_all_are_measured():
    found = search(TILES, lambda tile: 1.0, truth, Budget())
    assert found.best[0] == {"rows": 4, "depth": 64, "packed": 1}
    assert len(found.measured) == len(TILES)


def test_refused_tiles_are_neither_measured_nor_returned():
    def measure(tile):
        return None if tile["packed"] else truth(tile)

    found = search(TILES, truth, measure, Budget())
    assert {tile["packed"] for tile in found.refused} == {1}
    assert found.best[0] == {"rows": 4, "depth": 64, "packed": 0}


def test_known_measurements_are_gone_on_with():
    first = search(TILES, lambda tile: 1.0, truth, Budget(trials=7), seed=3)
    known = [(dict(key), seconds) for key, seconds in first.measured.items()]
    asked = []

    def measure(tile):
        asked.append(key_of(tile))
        return truth(tile)

    second = search(TILES, lambda tile: 1.0, measure, Budget(trials=7), known=known)
    assert len(asked) == 7 and not set(asked) & set(first.measured)
    assert len(second.measured) == 14


def test_no_time_left_still_yields_one_measurement():
    assert len(search(TILES, truth, truth, Budget(seconds=0.0)).measured) == 1


def test_same_seed_same_search():
    runs = [search(TILES, lambda tile: 1.0, truth, Budget(trials=12), seed=5) for _ in range(2)]
    assert list(runs[0].measured) == list(runs[1].measured)


def test_correction_moves_tiles_by_what_they_share():
    tiles = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}]
    correction = Correction(tiles, [1.0, 1.0, 1.0])
    assert correction.seconds(1.0).tolist() == [1.0, 1.0, 1.0]
    correction.add(0, 1.1)
    # one measurement sets the scale of all; the second is 10 % below it, and half of that is b's
    assert correction.seconds().tolist() == pytest.approx([1.1, 1.1, 1.1])
    correction.add(2, 0.9)
    one, other, last = correction.seconds()
    assert 0.9 < last < other < one < 1.1
