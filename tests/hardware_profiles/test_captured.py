"""From measurements of a device to predictions with its curves."""

import csv
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import pytest

from towtank import Plan, predict
from towtank.hardware_profiles.captured import read_table, write_profile
from towtank.hardware_profiles.curves import load_curves
from towtank.hardware_profiles.errors import ProfileError
from towtank.hardware_profiles.load import load_device
from towtank.kernels.bench import COLUMNS

CAPTURE = Path(str(resources.files("towtank.kernels").joinpath("captures/cpu-epyc-2-threads.bench.csv")))


def _row(kind: str, kernel: str, sizes: str, time_s: float) -> dict[str, object]:
    row = dict.fromkeys(COLUMNS, "")
    return row | {
        "kind": kind, "kernel": kernel, "sizes": sizes, "median_s": time_s, "dtype": "bfloat16",
        "device": "Test GPU", "software": "torch 0", "date": "2026-01-02",
    }  # fmt: skip


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _table(path: Path, rate: float = 4e14) -> Path:
    """Multiplies at `rate`, attention at 2e14 FLOP/s, twice as long backward, copies of 3 TB/s."""
    rows = [_row("launch", "fill", "elements=1", 2e-6), _row("copy", "copy", "elements=750000000", 1e-3)]
    rows += [
        _row("matmul", "matmul", f"m={m} n={n} k={k}", 2 * m * n * k / rate)
        for m in (256, 4096) for n in (1024, 8192) for k in (1024, 8192)
    ]  # fmt: skip
    rows.append(_row("layer", "matmul", "m=1024 n=4096 k=4096", 1.1 * 2 * 1024 * 4096**2 / rate))
    for heads in (16, 64):
        for sequence in (1024, 4096):
            time_s = 2 * heads * sequence**2 * 128 / 2e14
            sizes = f"batch=1 sequence={sequence} heads={heads} kv_heads={heads} head_dim=128"
            rows += [
                _row("attention", "attention", sizes, time_s),
                _row("attention", "attention_backward", sizes, 2 * time_s),
            ]
    return _write(path, rows)


def test_curves_give_back_what_was_measured(tmp_path: Path) -> None:
    said = write_profile(_table(tmp_path / "t.csv"), "h200-141gb", tmp_path / "mine")
    assert "matrix multiplies (8 in bf16), off by" in said
    device = load_device("h200-141gb", [tmp_path / "mine"])
    curves = load_curves(device.measured_as, [tmp_path / "mine"])
    matmul = curves.matmul["bf16"]
    assert matmul.flop_per_s(4096, 8192, 1024) == pytest.approx(4e14, rel=1e-3)
    attention = curves.attention["bf16"]
    assert attention.table_flop_per_s(1, 4096, 16, 16, 128) == pytest.approx(2e14, rel=1e-3)
    assert attention.backward_ratio(1024, 128) == pytest.approx(2, rel=1e-3)
    # 4 bytes an element, 750 million of them in a millisecond, of 4.8 TB/s
    assert curves.memory_fraction == pytest.approx(3e12 / 4.8e12, rel=1e-3)
    assert "Test GPU" in curves.provenance
    assert curves.experts["bf16"] is not None
    assert curves.collectives is not None


def _in_fp8(path: Path, inputs: tuple[int, ...], rate: float = 9e14) -> Path:
    """The table above with multiplies in fp8 as well."""
    with _table(path).open() as file:
        rows: list[dict[str, object]] = list(csv.DictReader(file))
    for m in (256, 4096):
        rows += [
            _row("matmul", "fp8_matmul", f"m={m} n=1024 k={k}", 2 * m * 1024 * k / rate)
            | {"dtype": "float8_e4m3fn"}
            for k in inputs
        ]
    return _write(path, rows)


def test_multiplies_in_fp8_become_a_curve_of_their_own(tmp_path: Path) -> None:
    said = write_profile(_in_fp8(tmp_path / "t.csv", (1024, 8192)), "h200-141gb", tmp_path / "mine")
    assert "matrix multiplies (8 in bf16, 4 in fp8)" in said
    curves = load_curves("h200-141gb", [tmp_path / "mine"]).matmul
    assert curves["fp8"].flop_per_s(4096, 1024, 8192) == pytest.approx(9e14, rel=1e-3)
    assert curves["bf16"].flop_per_s(4096, 1024, 8192) == pytest.approx(4e14, rel=1e-3)


def test_multiplies_in_fp8_that_do_not_do(tmp_path: Path) -> None:
    other = _in_fp8(tmp_path / "t.csv", (1024, 4096))
    with pytest.raises(ProfileError, match="in fp8 were measured at other k than those in bf16"):
        write_profile(other, "h200-141gb", tmp_path / "mine")
    table = _in_fp8(tmp_path / "t.csv", (1024, 8192))
    with pytest.raises(ProfileError, match="a100-80gb-sxm: needs peak_flop_per_s of fp8"):
        write_profile(table, "a100-80gb-sxm", tmp_path / "mine")


def test_predictions_use_them(tmp_path: Path) -> None:
    plan = Plan(data=8, global_batch=64, recompute="full")
    times = []
    for rate in (3e14, 6e14):
        folder = tmp_path / f"{rate:g}"
        write_profile(_table(tmp_path / "t.csv", rate), "h200-141gb", folder)
        step = predict("gpt-5b", "dgx-h200:nodes=1", plan, stack="megatron-2021", profile_dirs=[folder])
        times.append(step.breakdown_s["matmul"])
    assert times[0] == pytest.approx(2 * times[1], rel=0.05)


def test_the_recorded_cpu_can_be_read(tmp_path: Path) -> None:
    table = read_table(CAPTURE)
    assert table.device.startswith("AMD EPYC")
    assert table.date >= "2026-01-01"
    write_profile(CAPTURE, "h200-141gb", tmp_path)
    curve = load_curves("h200-141gb", [tmp_path]).matmul["bf16"]
    for row in table.of("matmul", "matmul"):
        sizes = (row.sizes["m"], row.sizes["n"], row.sizes["k"])
        assert curve.latency_s(*sizes) == pytest.approx(row.time_s, rel=1e-3)
    # no host or user in what is kept
    assert set(asdict(table.rows[0])) == {"kind", "kernel", "sizes", "time_s"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda rows: rows[:-5] and [row for row in rows if row["sizes"] != "m=256 n=8192 k=1024"],
            "1 of 8 combinations",
        ),
        (lambda rows: [row for row in rows if row["kind"] != "matmul"], "holds no matrix multiplies"),
        (lambda rows: [row for row in rows if row["kind"] != "copy"], "the table holds no copies"),
        (lambda rows: [*rows[:-1], rows[-1] | {"device": "Other"}], "Other, Test GPU"),
        (lambda rows: [*rows[:-1], rows[-1] | {"median_s": "-1"}], "must be above 0"),
        (lambda rows: [*rows[:-1], rows[-1] | {"sizes": "m"}], "row attention_backward m"),
        (lambda rows: [], "columns .* are missing"),
    ],
)
def test_tables_that_do_not_do(change, text: str, tmp_path: Path) -> None:
    path = _table(tmp_path / "t.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    with pytest.raises(ProfileError, match=text):
        write_profile(_write(path, change(rows)), "h200-141gb", tmp_path / "mine")
    # no half of a profile, which predictions would take for a whole one
    assert not (tmp_path / "mine").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
