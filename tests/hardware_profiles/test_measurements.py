"""The shipped measurement files: complete, small, and right on rows that no grid uses."""

import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest
import yaml

from towtank.hardware_profiles.curves import load_curves, measured_devices
from towtank.hardware_profiles.curves.experts import layer_flop
from towtank.hardware_profiles.curves.loading import rows_of
from towtank.hardware_profiles.curves.network import MEASUREMENTS

SAMPLES = rows_of(Path(__file__).parents[1] / "captures" / "measured_samples.csv")

# Bounds on the median error: of any one device and precision (a handful of rows), and of all together.
BOUNDS = {"matmul": (0.12, 0.045), "attention": (0.15, 0.06), "experts": (0.40, 0.20)}
ALL_MATMUL_MEAN = 0.07


def relative_errors(kind: str) -> dict[tuple[str, str], list[float]]:
    errors = defaultdict(list)
    for row in SAMPLES:
        if row["kind"] == kind:
            sizes = [int(float(row[name])) for name in "abcde" if row[name]]
            predicted = predict(kind, row["device"], row["precision"], sizes)
            measured = float(row["latency_us"]) * 1e-6
            errors[row["device"], row["precision"]].append(abs(predicted / measured - 1.0))
    return errors


def predict(kind: str, device: str, precision: str, sizes: list[int]) -> float:
    curves = load_curves(device)
    if kind == "matmul":
        m, n, k = sizes
        return curves.matmul[precision].latency_s(m, n, k)
    if kind == "attention":
        batch, sequence, heads, kv_heads, head_dim = sizes
        rate = curves.attention[precision].table_flop_per_s(batch, sequence, heads, kv_heads, head_dim)
        return 2.0 * batch * heads * sequence**2 * head_dim / rate
    tokens, hidden, inter, top_k, experts = sizes
    return curves.experts[precision].latency_s(tokens, hidden, inter, top_k, experts)


@pytest.mark.parametrize("kind", BOUNDS)
def test_held_out_rows_are_predicted_within_the_stated_bound(kind):
    group_bound, bound = BOUNDS[kind]
    errors = relative_errors(kind)
    too_far = {pair: median(own) for pair, own in errors.items() if median(own) > group_bound}
    assert not too_far
    assert median(error for own in errors.values() for error in own) <= bound


def test_held_out_multiplies_on_average():
    errors = [error for own in relative_errors("matmul").values() for error in own]
    assert len(errors) >= 200
    assert sum(errors) / len(errors) <= ALL_MATMUL_MEAN


def test_the_sample_is_spread():
    assert 300 <= len(SAMPLES) <= 500
    assert {row["device"] for row in SAMPLES} == set(measured_devices())


@pytest.mark.parametrize("device", measured_devices())
def test_every_shipped_multiply_is_read_back(device):
    with (MEASUREMENTS / f"{device}.matmul.csv").open() as file:
        header, *rows = csv.reader(line for line in file if not line.startswith("#"))
    for precision, m, n, *rates in rows[:: 7 if len(rows) > 300 else 1]:
        curve = load_curves(device).matmul[precision]
        for k, rate in zip(header[3:], rates, strict=True):
            assert curve.flop_per_s(int(m), int(n), int(k)) == pytest.approx(float(rate) * 1e12, rel=1e-6)


@pytest.mark.parametrize(
    "row", rows_of(MEASUREMENTS / "surfaces.csv"), ids=lambda r: "-".join([*r.values()][:3])
)
def test_stated_errors_are_within_the_promise(row):
    mean, median_error = float(row["held_out_mean"]), float(row["held_out_median"])
    if row["kind"] == "matmul":
        assert median_error <= 0.055 and mean <= 0.10
        assert float(row["off_tile_mean"]) <= 0.10 and float(row["coarse_mean"]) <= 0.10
    else:
        assert median_error <= {"attention": 0.10, "experts": 0.20}[row["kind"]]


def test_shipped_rates_stay_below_the_reference_peaks():
    for device in measured_devices():
        peaks = {name: curve.reference_peak_flop_per_s for name, curve in load_curves(device).matmul.items()}
        with (MEASUREMENTS / f"{device}.matmul.csv").open() as file:
            _, *rows = csv.reader(line for line in file if not line.startswith("#"))
        for precision, _, _, *rates in rows:
            assert max(map(float, rates)) * 1e12 <= peaks[precision]


def test_the_folder_is_small_and_free_of_stray_files():
    files = [path for path in MEASUREMENTS.iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".csv", ".yaml"}
    assert sum(path.stat().st_size for path in files) < 1.5e6


def test_every_file_has_a_source():
    sources = yaml.safe_load((MEASUREMENTS / "sources.yaml").read_text())
    patterns = [pattern for source in sources.values() for pattern in source["files"]]
    for path in MEASUREMENTS.glob("*.csv"):
        assert any(path.match(pattern) for pattern in patterns), path.name


def test_the_expert_sample_stays_below_the_peak():
    for row in SAMPLES:
        if row["kind"] == "experts":
            tokens, hidden, inter, top_k, _ = (int(row[name]) for name in "abcde")
            curve = load_curves(row["device"]).experts[row["precision"]]
            rate = layer_flop(tokens, hidden, inter, top_k) / (float(row["latency_us"]) * 1e-6)
            assert rate <= curve.reference_peak_flop_per_s
