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


def test_a_record_goes_on_with_the_shapes_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def timed(sizes: dict[str, int], tiles: list[Tile]) -> list[Record]:
        measured.append(sizes["m"])
        return [Record(sizes, tile, 1e-3, 1e-3) for tile in tiles]

    class Here:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> "Here":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def map(self, _: object, tiles: list[Tile]) -> list[bool]:
            return [True for _ in tiles]

    monkeypatch.setattr(gpu_captures, "_timed", timed)
    monkeypatch.setattr(gpu_captures, "ProcessPoolExecutor", Here)
    monkeypatch.setattr("towtank.kernels.launch.find", lambda *_: None)
    monkeypatch.setattr("towtank.kernels.device.device_name", lambda _: "GPU")
    monkeypatch.setattr("towtank.kernels.device.software", lambda _: "torch 1")
    tiles, shapes, kept = candidates(DEVICE)[:3], [(16, 16, 16), (32, 16, 16)], list[Capture]()
    record = gpu_captures.record
    record(tiles, shapes[:1], keep=kept.append)
    both = record(tiles, shapes, known=kept[-1], keep=kept.append)
    assert measured == [16, 32]
    assert both.shapes() == shapes and kept[-1] == both
    # what was measured elsewhere is not gone on with
    record(tiles, shapes, known=Capture("Device: another. Date: 2026-01-01.", both.records))
    assert measured == [16, 32, 16, 32]
