"""The model of tiles of a GPU against a record, without a GPU."""

from collections.abc import Callable

import pytest

from towtank.autotune.tiles import gpu_captures, gpu_model
from towtank.autotune.tiles.captures import Capture, Record
from towtank.autotune.tiles.gpu_captures import DTYPE, TOP, candidates, judge
from towtank.hardware_profiles.load import load_device
from towtank.kernels.records import Tile

DEVICE = load_device("h200-141gb")
SIZES = {"m": 4096, "n": 4096, "k": 4096}


def _capture(time: Callable[[Tile], float]) -> Capture:
    return Capture("", tuple(Record(SIZES, tile, time(tile), time(tile)) for tile in candidates(DEVICE)))


def test_all_candidates_fit_a_multiprocessor_and_differ() -> None:
    tiles = candidates(DEVICE)
    assert len(tiles) > 10 * TOP
    assert len({tuple(sorted(tile.items())) for tile in tiles}) == len(tiles)
    limit = gpu_model.limits(DEVICE)
    assert all(gpu_model.occupancy(tile, DTYPE, limit).programs >= 1 for tile in tiles)


def test_a_record_that_is_as_predicted_is_judged_right() -> None:
    (found,) = judge(_capture(lambda tile: gpu_model.seconds(SIZES, tile, DTYPE, DEVICE)), DEVICE)
    assert (found.shape, found.correlation, found.top) == ((4096, 4096, 4096), pytest.approx(1.0), 1.0)


def test_a_record_the_other_way_round_is_judged_wrong() -> None:
    (found,) = judge(_capture(lambda tile: 1 / gpu_model.seconds(SIZES, tile, DTYPE, DEVICE)), DEVICE)
    assert found.correlation == pytest.approx(-1.0)
    assert found.top > 1.05


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu_captures", "--profile", "h200-141gb", "--out", "never.csv.gz"])
    with pytest.raises(SystemExit):
        gpu_captures.main()
    assert "no GPU that torch can use was found" in capsys.readouterr().err
