"""Measuring, and the choice of modes."""

import csv
import math
from importlib import resources
from pathlib import Path

import pytest

from towtank.kernels import bench, launch
from towtank.kernels.bench import COLUMNS, measure, sizes_of, sizes_text
from towtank.kernels.device import software
from towtank.kernels.errors import KernelError, TooLargeError
from towtank.kernels.modes import (
    ModeTimes,
    choices,
    choose,
    layer_problems,
    measure_modes,
    read_modes,
    seconds_of_modes,
    write_modes,
)
from towtank.kernels.registry import kernels
from towtank.kernels.sweeps import LARGE, SMALL, Point, points, sweep_for
from towtank.kernels.tables import append, left, write

CAPTURES = resources.files("towtank.kernels").joinpath("captures")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(launch, "_PASSED", set())


def test_points_are_measured_by_what_is_validated(tmp_path: Path) -> None:
    wanted = [
        Point("launch", "fill", "bfloat16", {"elements": 1}),
        Point("copy", "copy", "bfloat16", {"elements": 1000}),
        Point("matmul", "matmul", "bfloat16", {"m": 4, "n": 5, "k": 6}),
        Point("elementwise", "swiglu_backward", "float32", {"rows": 3, "columns": 7}),
    ]
    seen: list[int] = []
    found = measure(wanted, "cpu", budget_s=0.01, progress=lambda done, total, what: seen.append(done))
    rows = list(found)
    assert seen == [1, 2, 3, 4]
    assert [row.flop for row in rows] == [0, 0, 2 * 4 * 5 * 6, 13 * 21]
    assert [row.bytes for row in rows] == [2, 4000, 2 * (24 + 30 + 20), 5 * 21 * 4]
    assert all(0 < row.least_s <= row.median_s for row in rows)
    assert {(each.kernel, each.passed) for each in launch.recorded("cpu")} == {
        ("matmul", True), ("swiglu_backward", True)
    }  # fmt: skip
    path = tmp_path / "table.csv"
    write(path, rows)
    with path.open() as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == COLUMNS
    assert read[2]["sizes"] == "m=4 n=5 k=6"
    assert float(read[2]["median_s"]) == pytest.approx(rows[2].median_s, rel=1e-5)


POINTS = [
    Point("matmul", "matmul", "float32", {"m": 2, "n": 3, "k": 4}),
    Point("launch", "fill", "float32", {"elements": 1}),
    Point("elementwise", "gelu", "float32", {"rows": 2, "columns": 3}),
]


def test_a_table_goes_on_where_it_was_broken_off(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert left(path, POINTS, "cpu", "library") == POINTS
    for row in measure(POINTS[:2], "cpu", budget_s=0.01):
        append(path, row)
    before = path.read_text()
    path.write_text(before + "elementwise,gelu,lib")  # a crash within a line
    assert left(path, POINTS, "cpu", "library") == POINTS[2:]
    for row in measure(POINTS[2:], "cpu", budget_s=0.01):
        append(path, row)
    assert path.read_text().startswith(before + "elementwise,gelu,library,")
    assert left(path, POINTS, "cpu", "library") == []


def test_a_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for row in measure(POINTS[:1], "cpu", budget_s=0.01):
        append(path, row)
    with pytest.raises(KernelError, match="holds measurements of backend library"):
        left(path, POINTS, "cpu", "triton")
    path.write_text(path.read_text().replace(software("cpu"), "torch 1.0"))
    with pytest.raises(KernelError, match="another software"):
        left(path, POINTS, "cpu", "library")
    path.write_text("a letter\n")
    with pytest.raises(KernelError, match="no table"):
        left(path, POINTS, "cpu", "library")


def test_what_is_wrong_is_left_out_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def require(kernel, *_):
        if kernel.name == "matmul":
            raise KernelError("matmul is wrong on this device")

    monkeypatch.setattr(bench, "require", require)
    told: list[str] = []
    rows = measure([POINTS[0], *POINTS], "cpu", budget_s=0.01, skipped=lambda point, why: told.append(why))
    assert [row.kernel for row in rows] == ["fill", "gelu"]
    assert told == ["matmul is wrong on this device"] * 2
    with pytest.raises(KernelError):
        list(measure(POINTS, "cpu", budget_s=0.01))


def test_sizes_that_memory_does_not_hold_do_not_condemn_the_kernel() -> None:
    huge = Point("matmul", "matmul", "float32", dict.fromkeys("mnk", 10**8))
    told: list[str] = []
    rows = measure([huge, POINTS[0]], "cpu", budget_s=0.01, skipped=lambda point, why: told.append(why))
    assert [row.sizes for row in rows] == ["m=2 n=3 k=4"]
    (why,) = told
    assert "needs 120,000,000.0 GB for inputs and outputs" in why
    with pytest.raises(TooLargeError):
        list(measure([huge], "cpu"))


def test_sizes_are_text_and_back() -> None:
    assert sizes_of(sizes_text({"m": 3, "kv_heads": 1})) == {"m": 3, "kv_heads": 1}


@pytest.mark.parametrize("sweep", [LARGE, SMALL, sweep_for("cuda", True), sweep_for("cpu", True)])
def test_sweeps_name_kernels_and_all_their_sizes(sweep) -> None:
    found = list(points(sweep))
    assert len({(each.kernel, each.dtype, *each.sizes.items(), each.kind) for each in found}) == len(found)
    for each in found:
        if each.kind not in ("launch", "copy"):
            assert set(each.sizes) == set(kernels()[each.kernel].dimensions)


def _times(*pairs: tuple[float, float]) -> list[ModeTimes]:
    return [ModeTimes("matmul", "float32", "m=1", f"swap={n}", *pair) for n, pair in enumerate(pairs)]


def test_the_choice_by_hand() -> None:
    # the second is chosen by its first time; by the second times it gains 10/8 and lies 8/7.5 over the third
    found = choose(_times((10, 10), (7, 8), (8, 7.5)))
    assert (found.mode, found.gain, found.over_best) == ("swap=1", 10 / 8, 8 / 7.5)
    # a percent is not worth a copy
    assert choose(_times((10, 10), (9.9, 9.9))).mode == "swap=0"


def test_modes_of_a_multiply_are_measured_and_kept(tmp_path: Path) -> None:
    times = measure_modes([("matmul", {"m": 3, "n": 4, "k": 5})], "float32", "cpu", budget_s=0.02)
    assert len(times) == 8
    assert times[0].mode == "swap=0"
    write_modes(tmp_path / "modes.csv", times, ["a note"])
    again = read_modes(tmp_path / "modes.csv")
    assert [each.mode for each in again] == [each.mode for each in times]
    assert len(choices(again)) == 1


def test_layers_have_four_multiplies_in_three_directions() -> None:
    problems = layer_problems((64, 128))
    assert len(problems) == 24
    assert ("matmul_wgrad", {"m": 128, "n": 512, "k": 128}) in problems


def test_ratios_within_turns_stand_for_a_clock_that_changes() -> None:
    # a clock that halves and one that doubles: the mode takes twice as long as the default in each turn
    placement = [[1.0, 2.0], [9.0, 9.0], [2.0, 4.0], [9.0, 9.0], [0.5, 1.0]]
    assert seconds_of_modes([placement], 0) == [1.0, 2.0]
    assert seconds_of_modes([placement], 1) == [9.0, 9.0]


def test_times_are_means_over_the_placements_in_which_a_mode_was_timed() -> None:
    first = [[1.0, 0.5, 4.0]] * 4
    second = [[1.0, 1.5, math.nan]] * 4
    assert seconds_of_modes([first, second], 0) == [1.0, 1.0, 4.0]


@pytest.mark.parametrize(("name", "largest_gain"), [("cpu-epyc-1-thread", 1.0), ("cpu-epyc-2-threads", 1.24)])
def test_the_recorded_choices_of_six_layers(name: str, largest_gain: float) -> None:
    # the modes of GPT layers; their device and date stand in the file
    times = read_modes(Path(str(CAPTURES.joinpath(f"{name}.modes.csv"))))
    found = choices(times)
    assert len(found) == 72
    assert len(times) == 8 * len(found)
    assert max(each.over_best for each in found) <= 1.03
    assert max(each.gain for each in found) == pytest.approx(largest_gain, abs=0.01)
