"""The shipped measurement files: complete, small, and right on shapes that no curve has seen."""

import csv

import pytest
import yaml

from towtank.hardware_profiles.curves import load_curves, measured_devices
from towtank.hardware_profiles.curves.experts import layer_flop
from towtank.hardware_profiles.curves.left_out import (
    KINDS,
    KernelErrors,
    errors_by_group,
    is_left_out,
    sample,
    stated_errors,
)
from towtank.hardware_profiles.curves.loading import rows_of
from towtank.hardware_profiles.curves.network import MEASUREMENTS

SAMPLE = sample()

MEDIAN = {"matmul": 0.08, "attention": 0.10, "collectives": 0.10, "experts": 0.15}
MATMUL_P90 = 0.25


def name_of(errors: KernelErrors) -> str:
    return f"{errors.kind}-{errors.device}-{errors.precision}"


@pytest.mark.parametrize("errors", errors_by_group(SAMPLE), ids=name_of)
def test_sampled_kernels_of_left_out_shapes_are_within_the_bound(errors):
    assert errors.rows >= 30
    assert errors.median <= MEDIAN[errors.kind]
    if errors.kind == "matmul":
        assert errors.p90 <= MATMUL_P90


@pytest.mark.parametrize("errors", stated_errors(), ids=name_of)
def test_the_stated_errors_on_all_left_out_kernels_are_within_the_bound(errors):
    assert errors.median <= MEDIAN[errors.kind]
    if errors.kind == "matmul":
        assert errors.p90 <= MATMUL_P90


def test_the_stated_errors_are_those_of_the_shipped_curves():
    # the median of the sample scatters about that of all rows by some tenths of it
    stated = {(e.kind, e.device, e.precision): e for e in stated_errors()}
    found = {(e.kind, e.device, e.precision): e for e in errors_by_group(SAMPLE)}
    assert stated.keys() == found.keys()
    for key, errors in found.items():
        assert errors.rows <= stated[key].rows
        assert errors.median == pytest.approx(stated[key].median, rel=0.6, abs=0.01), key


def test_the_sample_holds_left_out_shapes_of_every_device_and_kind():
    assert {row.device for row in SAMPLE} == set(measured_devices())
    assert {row.kind for row in SAMPLE} == set(KINDS)
    for row in SAMPLE:
        sizes = row.sizes
        shape = {"matmul": sizes[1:], "attention": sizes[2:], "experts": sizes[1:7]}.get(
            row.kind, (row.variant, *sizes)
        )
        assert is_left_out(row.kind, *shape), row


def test_about_a_fifth_of_the_shapes_is_left_out():
    sizes = [256, 512, 768, 1024, 1536, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192]
    left_out = sum(is_left_out("matmul", n, k) for n in sizes for k in sizes)
    assert 0.12 < left_out / len(sizes) ** 2 < 0.28
    assert [is_left_out("matmul", 1024, 2048), is_left_out("matmul", 2048, 1024)] == [True, False]


@pytest.mark.parametrize("device", measured_devices())
def test_every_shipped_multiply_is_read_back(device):
    with (MEASUREMENTS / f"{device}.matmul.csv").open() as file:
        header, *rows = csv.reader(line for line in file if not line.startswith("#"))
    for precision, m, n, *rates in rows[:: 7 if len(rows) > 300 else 1]:
        curve = load_curves(device).matmul[precision]
        for k, rate in zip(header[3:], rates, strict=True):
            assert curve.flop_per_s(int(m), int(n), int(k)) == pytest.approx(float(rate) * 1e12, rel=1e-6)


def test_shipped_rates_stay_below_the_reference_peaks():
    for device in measured_devices():
        peaks = {name: curve.reference_peak_flop_per_s for name, curve in load_curves(device).matmul.items()}
        with (MEASUREMENTS / f"{device}.matmul.csv").open() as file:
            _, *rows = csv.reader(line for line in file if not line.startswith("#"))
        for precision, _, _, *rates in rows:
            assert max(map(float, rates)) * 1e12 <= peaks[precision]


def test_the_folder_is_small_and_free_of_stray_files():
    files = [path for path in MEASUREMENTS.iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".csv", ".yaml", ".gz"}
    assert sum(path.stat().st_size for path in files) < 1.6e6


def test_every_file_has_a_source():
    sources = yaml.safe_load((MEASUREMENTS / "sources.yaml").read_text())
    patterns = [pattern for source in sources.values() for pattern in source["files"]]
    for path in MEASUREMENTS.glob("*.csv*"):
        assert any(path.match(pattern) for pattern in patterns), path.name


def test_no_sampled_expert_layer_beats_the_peak():
    for row in SAMPLE:
        if row.kind == "experts":
            tokens, hidden, inter, top_k, _, tensor, expert, matrices = row.sizes
            curve = load_curves(row.device).experts[row.precision]
            flop = layer_flop(tokens / expert, hidden, inter / tensor, top_k, matrices)
            # with power-law routing some rank has more than its share, so that the share's rate is lower still
            assert flop / row.measured_s <= curve.reference_peak_flop_per_s, row


def test_surfaces_name_every_fit():
    fits = [row for row in rows_of(MEASUREMENTS / "surfaces.csv") if row["grid_points"]]
    assert {(row["kind"], row["device"]) for row in fits} >= {("matmul", name) for name in measured_devices()}
