"""`python -m towtank.hardware_profiles.compact --tables DIR`: rebuild the measurements, print the errors."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from towtank.hardware_profiles.compact import attention, experts, matmul, published, samples
from towtank.hardware_profiles.compact.tables import MEASUREMENTS, ORIGIN, groups, read, short, write
from towtank.hardware_profiles.curves.attention import AttentionCurve
from towtank.hardware_profiles.curves.loading import DeviceFigures, device_figures, rows_of

SURFACE_COLUMNS = (
    "device",
    "kind",
    "precision",
    "tile_rows",
    "wave_exponent",
    "launch_floor_s",
    "grid_points",
    "gaps_filled",
    "held_out_rows",
    "held_out_median",
    "held_out_mean",
    "off_tile_rows",
    "off_tile_median",
    "off_tile_mean",
    "coarse_rows",
    "coarse_median",
    "coarse_mean",
)
NETWORK_COLUMNS = (
    "system",
    "operation",
    "num_devices",
    "nodes",
    "message_bytes",
    "bandwidth_bytes_per_s",
    "convention",
    "source",
    "note",
)


def main() -> None:
    """Build every file; the hand-written devices.csv and sources.yaml are only read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the *_measured.csv.gz tables")
    parser.add_argument("--samples", type=Path, help="also write a sample of held-out rows here")
    arguments = parser.parse_args()
    devices = device_figures(MEASUREMENTS)
    measurements = pd.read_csv(arguments.tables / "hardware_measurements.csv", low_memory=False)
    gemm = read(arguments.tables, "gemm", "gemm_dtype")
    attention_table = _attention_table(arguments.tables, devices)
    moe = experts.prepare(read(arguments.tables, "moe", "moe_dtype"))
    surfaces = [
        *_matmul(gemm, devices),
        *_attention(attention_table, devices, measurements),
        *_experts(moe, devices),
    ]
    write(MEASUREMENTS / "surfaces.csv", [ORIGIN, *SURFACE_COMMENTS], SURFACE_COLUMNS, surfaces)
    _collectives(arguments.tables, devices)
    _lists(measurements, gemm, devices)
    if arguments.samples:
        samples.write_samples(arguments.samples, gemm, attention_table, moe)


SURFACE_COMMENTS = (
    "How each surface was fitted, and |predicted / measured - 1| of kernel times on rows held out.",
    "matmul, from 1 GFLOP: held_out = m outside of the grid, multiples of 64;"
    " off_tile = other m (129, 2561);"
    " coarse = m of the grid, with a third of the n and k taken out of the grid.",
    "attention, from 1 GFLOP: held_out = products batch x heads outside of the grid;"
    " coarse = sequences taken out of the grid.",
    "experts, from 10 GFLOP, balanced routing: held_out = model shapes left out in turn (five folds);"
    " coarse = those of them with 128 copies per expert and more.",
)


def _attention_table(tables: Path, devices: dict[str, DeviceFigures]) -> pd.DataFrame:
    frame = read(tables, "attention", "attn_dtype")
    peaks = {
        (device, precision): devices[device].peak_flop_per_s(precision)
        for device, precision in {*zip(frame.device, frame.precision, strict=True)}
    }
    return attention.prepare(frame, peaks)


def _errors(*groups: tuple[int, float, float]) -> list[object]:
    cells: list[object] = []
    for count, median, mean in groups:
        cells += [count, short(median), short(mean)] if count else [0, "", ""]
    return cells


def _report(row: list[object]) -> list[object]:
    print(",".join(map(str, row)), flush=True)
    return row


def _matmul(frame: pd.DataFrame, devices: dict[str, DeviceFigures]) -> Iterator[list[object]]:
    for device, own in groups(frame, "device"):
        lines: list[list[object]] = []
        header: list[object] = []
        for precision, rows in groups(own, "precision"):
            surface = matmul.build(rows, precision, devices[device])
            m_axis, n_axis, k_axis = surface.axes
            header = ["precision", "m", "n", *k_axis]
            rates = iter(surface.rates)
            for m in m_axis:
                for n in n_axis:
                    lines.append([precision, m, n, *(short(next(rates) / 1e12) for _ in k_axis)])
            model = surface.curve.model
            fit = [model.tile_rows, model.wave_exponent, model.launch_floor_s]
            fit += [len(surface.rates), surface.gaps]
            errors = _errors(surface.aligned, surface.off_tile, surface.coarse)
            yield _report([device, "matmul", precision, *fit, *errors])
        comment = f"{device}: achieved TFLOP/s (2 m n k over time) by m, n (rows) and k (columns). {ORIGIN}"
        write(MEASUREMENTS / f"{device}.matmul.csv", [comment], header, lines)


def _attention(
    frame: pd.DataFrame, devices: dict[str, DeviceFigures], measurements: pd.DataFrame
) -> Iterator[list[object]]:
    figures = attention.published_figures(measurements)
    curves: dict[str, AttentionCurve] = {}
    for device, own in groups(frame, "device"):
        if devices[device].attention_as != device:
            continue
        lines: list[list[object]] = []
        for precision, rows in groups(own, "precision"):
            surface = attention.with_derived_head_dim(attention.build(rows), figures, device)
            if precision == "bf16":
                curves[device] = attention.curve_of(surface.axes, surface.rates)
            for group, values in surface.rates.items():
                rates = iter(values)
                for head_dim in surface.axes[0]:
                    for sequence in surface.axes[1]:
                        cells = [short(next(rates) / 1e12) for _ in surface.axes[2]]
                        lines.append([precision, group, head_dim, sequence, *cells])
            points = sum(map(len, surface.rates.values()))
            fit = ["", "", "", points, surface.gaps]
            errors = _errors(surface.off_grid, (0, 0.0, 0.0), surface.coarse)
            yield _report([device, "attention", precision, *fit, *errors])
        comment = (
            f"{device}: achieved TFLOP/s of causal forward attention (2 b h s^2 d over time) by batch x heads"
            f" (columns). {ORIGIN}"
        )
        header = ["precision", "group", "head_dim", "sequence", *attention.PARALLEL_HEADS]
        write(MEASUREMENTS / f"{device}.attention.csv", [comment], header, lines)
    published_table = attention.published_rows(figures, measurements, curves)
    header = ["device", "implementation", "head_dim", "sequence", "forward_over_table"]
    header += ["backward_over_forward_time", "source"]
    comment = (
        "Published attention: forward rate over that of the device's tables, and time of"
        " backward over forward (3.5 x forward rate / forward+backward rate - 1). Causal, multi-head."
    )
    write(MEASUREMENTS / "published_attention.csv", [comment], header, published_table)


def _experts(frame: pd.DataFrame, devices: dict[str, DeviceFigures]) -> Iterator[list[object]]:
    imbalance: list[list[object]] = []
    for device, own in groups(frame, "device"):
        lines: list[list[object]] = []
        for precision, rows in groups(own, "precision"):
            surface = experts.build(rows, precision, devices[device])
            slowdowns = iter(surface.slowdowns)
            for count in experts.EXPERTS:
                for weights in experts.WEIGHTS:
                    cells = [short(next(slowdowns)) for _ in experts.COPIES]
                    lines.append([precision, count, weights, *cells])
            for degree, ratio in surface.imbalance.items():
                imbalance.append([device, precision, degree, short(ratio), device])
            fit = ["", "", "", len(surface.slowdowns), 0]
            errors = _errors(surface.held_out, (0, 0.0, 0.0), surface.many_copies)
            yield _report([device, "experts", precision, *fit, *errors])
        comment = (
            f"{device}: forward time of a gated expert layer over its roofline, by experts of the rank,"
            f" hidden x inter (rows) and copies per expert (columns). Fitted. {ORIGIN}"
        )
        header = ["precision", "experts", "hidden_x_inter", *experts.COPIES]
        write(MEASUREMENTS / f"{device}.experts.csv", [comment], header, lines)
    comment = (
        "Median time of power-law routing (exponent 1.2, most loaded rank) over balanced routing,"
        " from 32 copies per expert up. measured_on: whose figures they are."
    )
    header = ["device", "precision", "expert_parallel", "time_ratio", "measured_on"]
    imbalance = experts.with_relative_imbalance(imbalance)
    write(MEASUREMENTS / "imbalance.csv", [comment, ORIGIN], header, imbalance)


def _collectives(tables: Path, devices: dict[str, DeviceFigures]) -> None:
    usable = {row["device"] for row in rows_of(MEASUREMENTS / "devices.csv") if row["collectives"] == "yes"}
    frame = pd.read_csv(tables / "collectives_measured.csv.gz")
    frame = frame[(frame.nccl_dtype == "half") & frame.device.isin(usable & devices.keys())]
    for device, own in groups(frame, "device"):
        sizes, rows, raised = published.collective_rows(own)
        comment = (
            f"{device}: microseconds by message bytes (the whole array), fp16, one node, NCCL. {raised} of"
            f" {len(rows) * len(sizes)} times were below that of a smaller message and raised to it. {ORIGIN}"
        )
        header = ["operation", "num_devices", *sizes]
        write(MEASUREMENTS / f"{device}.collectives.csv", [comment], header, rows)
        print(device, "collectives:", raised, "of", len(rows) * len(sizes), "times raised")


def _lists(measurements: pd.DataFrame, gemm: pd.DataFrame, devices: dict[str, DeviceFigures]) -> None:
    comment = "Published collective bandwidths, inside and between nodes; each row names its source."
    write(
        MEASUREMENTS / "network_curves.csv", [comment], NETWORK_COLUMNS, published.network_rows(measurements)
    )
    rows = [published.memory_row(gemm[gemm.device == device], figures) for device, figures in devices.items()]
    others = published.other_memory_rows(measurements)
    comment = "Memory bandwidth reached over that of the data sheet; the first row of a device is used."
    header = ["device", "fraction", "achieved_bytes_per_s", "method", "source"]
    write(MEASUREMENTS / "memory_fraction.csv", [comment], header, [*rows, *others])


if __name__ == "__main__":
    main()
