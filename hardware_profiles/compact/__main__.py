"""`python -m towtank.hardware_profiles.compact --tables DIR`: rebuild the measurements, print the errors."""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from towtank.hardware_profiles.compact import attention, experts, matmul, published
from towtank.hardware_profiles.compact.left_out import fitted, judge, marked, write_sample
from towtank.hardware_profiles.compact.tables import MEASUREMENTS, ORIGIN, groups, read, short, write
from towtank.hardware_profiles.curves.attention import AttentionCurve
from towtank.hardware_profiles.curves.left_out import SAMPLE, KernelErrors
from towtank.hardware_profiles.curves.loading import DeviceFigures, device_figures, rows_of

Key = tuple[str, str, str]
Fits = dict[Key, list[object]]
"""Columns tile_rows to gaps_filled by device, kind and precision."""

SURFACE_COLUMNS = (
    "device",
    "kind",
    "precision",
    "tile_rows",
    "wave_exponent",
    "launch_floor_s",
    "grid_points",
    "gaps_filled",
    "left_out_rows",
    "left_out_median",
    "left_out_p90",
)
SURFACE_COMMENTS = (
    "How each surface was fitted, and |predicted / measured - 1| of times on all measured rows of left-out shapes,"
    " a fifth of the shapes (curves/left_out.py), at every other size (rows m, batch and sequence, tokens).",
    "gaps_filled: grid points that were left out or not measured. Rows without a fit are judged by the curve of"
    " another precision (collectives: fp16) or device (attention of b200).",
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
    arguments = parser.parse_args()
    devices = device_figures(MEASUREMENTS)
    measurements = pd.read_csv(arguments.tables / "hardware_measurements.csv", low_memory=False)
    gemm = read(arguments.tables, "gemm", "gemm_dtype")
    attention_table = _attention_table(arguments.tables, devices)
    moe = experts.prepare(read(arguments.tables, "moe", "moe_dtype"))
    tables = {
        "matmul": marked(gemm, "matmul"),
        "attention": marked(attention_table, "attention"),
        "collectives": marked(_collectives_table(arguments.tables, devices), "collectives"),
        "experts": marked(moe, "experts"),
    }
    fits = {
        **_matmul(fitted(tables["matmul"]), devices),
        **_attention(fitted(tables["attention"]), devices, measurements),
        **_experts(fitted(tables["experts"]), devices),
    }
    _collectives(fitted(tables["collectives"]))
    _lists(measurements, gemm, devices)
    _write_surfaces([[*key, *fit, "", "", ""] for key, fit in fits.items()])  # the loader needs the fits
    _write_surfaces([_judged(errors, fits) for errors in judge(tables)])
    write_sample(SAMPLE, tables)


def _write_surfaces(rows: list[list[object]]) -> None:
    write(MEASUREMENTS / "surfaces.csv", [ORIGIN, *SURFACE_COMMENTS], SURFACE_COLUMNS, rows)


def _judged(errors: KernelErrors, fits: Fits) -> list[object]:
    key = (errors.device, errors.kind, errors.precision)
    row = [*key, *fits.get(key, [""] * 5), errors.rows, short(errors.median), short(errors.p90)]
    print(",".join(map(str, row)), flush=True)
    return row


def _attention_table(tables: Path, devices: dict[str, DeviceFigures]) -> pd.DataFrame:
    frame = read(tables, "attention", "attn_dtype")
    peaks = {
        (device, precision): devices[device].peak_flop_per_s(precision)
        for device, precision in {*zip(frame.device, frame.precision, strict=True)}
    }
    return attention.prepare(frame, peaks)


def _collectives_table(tables: Path, devices: dict[str, DeviceFigures]) -> pd.DataFrame:
    usable = {row["device"] for row in rows_of(MEASUREMENTS / "devices.csv") if row["collectives"] == "yes"}
    frame = pd.read_csv(tables / "collectives_measured.csv.gz")
    frame = frame[frame.device.isin(usable & devices.keys())]
    names = {"half": "fp16", "int8": "int8"}
    operations = frame.op_name.map(published.OPERATIONS)
    return frame.assign(precision=frame.nccl_dtype.map(names), operation=operations)


def _matmul(frame: pd.DataFrame, devices: dict[str, DeviceFigures]) -> Fits:
    fits: Fits = {}
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
            model = surface.model
            fit = [model.tile_rows, model.wave_exponent, model.launch_floor_s]
            fits[device, "matmul", precision] = [*fit, len(surface.rates), surface.gaps]
        comment = f"{device}: achieved TFLOP/s (2 m n k over time) by m, n (rows) and k (columns). {ORIGIN}"
        write(MEASUREMENTS / f"{device}.matmul.csv", [comment], header, lines)
    return fits


def _attention(frame: pd.DataFrame, devices: dict[str, DeviceFigures], measurements: pd.DataFrame) -> Fits:
    fits: Fits = {}
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
            fits[device, "attention", precision] = ["", "", "", points, surface.gaps]
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
    return fits


def _experts(frame: pd.DataFrame, devices: dict[str, DeviceFigures]) -> Fits:
    fits: Fits = {}
    for device, own in groups(frame, "device"):
        lines: list[list[object]] = []
        for precision, rows in groups(own, "precision"):
            surface = experts.build(rows, precision, devices[device])
            points = 0
            for routing in surface.sizes:
                values = iter([*surface.sizes[routing], *surface.degrees[routing]])
                places: list[tuple[object, ...]] = [
                    *((*place, "") for place in product(*experts.SIZE_AXES[:-1])),
                    *(("", "", "", degree) for degree in experts.DEGREES),
                ]
                for place in places:
                    lines.append([precision, routing, *place, *(short(next(values)) for _ in experts.COPIES)])
                points += len(places) * len(experts.COPIES)
            fits[device, "experts", precision] = ["", "", "", points, 0]
        comment = (
            f"{device}: forward time of an expert layer over its roofline, by experts of the rank, hidden and"
            f" intermediate size (rows) and copies per expert (columns), and a factor by expert degree (rows without"
            f" sizes). Fitted. {ORIGIN}"
        )
        header = ["precision", "routing", "experts", "hidden", "inter", "expert_parallel", *experts.COPIES]
        write(MEASUREMENTS / f"{device}.experts.csv", [comment], header, lines)
    return fits


def _collectives(frame: pd.DataFrame) -> None:
    for device, own in groups(frame[frame.precision == "fp16"], "device"):
        sizes, rows, raised = published.collective_rows(own)
        comment = (
            f"{device}: microseconds by message bytes (the whole array), fp16, one node, NCCL. {raised} times"
            f" were below that of a smaller message and raised to it. {ORIGIN}"
        )
        header = ["operation", "num_devices", *sizes]
        write(MEASUREMENTS / f"{device}.collectives.csv", [comment], header, rows)


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
