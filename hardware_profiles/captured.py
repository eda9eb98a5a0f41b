"""From a table of measurements of one device to a folder of private profiles in which that device has its curves.

The table is what `towtank kernels bench` writes: a row for each kernel at sizes, with its median time.
"""

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from towtank.hardware_profiles.curves.attention import forward_flop
from towtank.hardware_profiles.curves.loading import Row, rows_of
from towtank.hardware_profiles.curves.matmul import ELEMENT_BYTES, MatmulCurve, RooflineModel
from towtank.hardware_profiles.curves.network import MEASUREMENTS
from towtank.hardware_profiles.errors import ProfileError
from towtank.hardware_profiles.load import load_device
from towtank.hardware_profiles.records import Device

PRECISION = "bf16"
"""The precision that every table holds, as bfloat16."""
MULTIPLIES = {PRECISION: "matmul", "fp8": "fp8_matmul"}
"""Kernel of the matrix multiplies of each precision whose curves predictions read."""
NEEDED = {"kind", "kernel", "dtype", "sizes", "median_s", "device", "software", "date"}
MATMUL, ATTENTION = ("m", "n", "k"), ("head_dim", "sequence", "heads")


@dataclass(frozen=True, slots=True)
class Measured:
    """Median seconds of one kernel at its sizes."""

    kind: str
    kernel: str
    sizes: Mapping[str, int]
    time_s: float


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one device in the precisions that predictions read."""

    rows: tuple[Measured, ...]
    device: str
    software: str
    date: str

    def of(self, kind: str, kernel: str) -> list[Measured]:
        """Rows of one kernel of one sweep."""
        return [row for row in self.rows if (row.kind, row.kernel) == (kind, kernel)]


def read_table(path: Path) -> Table:
    """Read a table of measurements.

    Raises:
        ProfileError: the file is no such table, or holds several devices, or nothing in bf16.
    """
    try:
        rows = rows_of(path)
    except (OSError, ValueError, csv.Error) as error:
        raise ProfileError(f"{path}: cannot be read as a table of measurements: {error}") from error
    missing = sorted(NEEDED - set(rows[0] if rows else ()))
    if missing:
        raise ProfileError(
            f"{path}: columns {', '.join(missing)} are missing; make it by `towtank kernels bench`"
        )
    devices = sorted({row["device"] for row in rows})
    if len(devices) > 1:
        raise ProfileError(f"{path}: a profile is of one device, but the table holds {', '.join(devices)}")
    own = [
        _measured(path, row)
        for row in rows
        if row["dtype"] == "bfloat16" or row["kernel"] == MULTIPLIES["fp8"]
    ]
    if not any((row.kind, row.kernel) == ("matmul", MULTIPLIES[PRECISION]) for row in own):
        raise ProfileError(f"{path}: holds no matrix multiplies in bfloat16, which predictions are made from")
    return Table(tuple(own), devices[0], rows[0]["software"], rows[0]["date"])


def _measured(path: Path, row: Row) -> Measured:
    try:
        sizes = {name: int(value) for name, value in (each.split("=") for each in row["sizes"].split())}
        time_s = float(row["median_s"])
    except ValueError as error:
        raise ProfileError(f"{path}: row {row['kernel']} {row['sizes']}: {error}") from error
    if not 0 < time_s < float("inf"):
        raise ProfileError(
            f"{path}: row {row['kernel']} {row['sizes']}: median_s must be above 0, is {time_s}"
        )
    return Measured(row["kind"], row["kernel"], sizes, time_s)


def write_profile(path: Path, device: str, folder: Path) -> str:
    """Write devices/ and measurements/ of a folder of private profiles; returns what was written, in words.

    The device keeps its figures and gets the curves of the table; curves that the table does not hold are copied.

    Raises:
        ProfileError: the table or the device is not there or of no use.
    """
    table, base = read_table(path), load_device(device)
    # its own name, and not one that it borrows from: rates then stand as they were measured
    name = base.name
    try:
        with tempfile.TemporaryDirectory() as work:  # a table that is refused must leave no half of a profile
            made = Path(work)
            (made / "devices").mkdir()
            (made / "measurements").mkdir()
            (made / "devices" / f"{base.name}.yaml").write_text(
                f"# Curves of {table.device}, {table.software}, {table.date}.\n"
                f"name: {base.name}\nfrom: {base.name}\n"
                f"description: {json.dumps(f'{base.description}, with curves captured on {table.device}')}\n"
                f"measured_as: {name}\n",
                "utf-8",
            )
            what = _write_measurements(table, base, name, made / "measurements")
            shutil.copytree(made, folder, dirs_exist_ok=True)
    except shutil.Error as error:
        raise ProfileError(f"{folder}: cannot be written: {error}") from error
    except OSError as error:
        raise ProfileError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return f"{folder}: {what}"


def _write_measurements(table: Table, base: Device, name: str, folder: Path) -> str:
    note = f"# Measured by towtank kernels bench on {table.device}, {table.software}, {table.date}."
    shipped = _device_row(base.measured_as)
    source = f"towtank kernels bench on {table.device}, {table.date}"
    surfaces, errors = _write_matmul(table, base, name, folder, note)
    multiplies = ", ".join(f"{row['grid_points']} in {row['precision']}" for row in surfaces)
    attention = table.of("attention", "attention")
    if attention:
        _write_attention(table, attention, name, folder, note)
        surfaces.append(_surface(name, "attention", PRECISION, None, len(attention), [], source))
    else:
        surfaces += _copied(shipped["attention_as"], "attention", folder)
        _copy_published(shipped["published_attention_as"], folder)
    surfaces += _copied(shipped["experts_as"], "experts", folder)
    collectives = MEASUREMENTS / f"{base.measured_as}.collectives.csv"
    if collectives.is_file():
        shutil.copyfile(collectives, folder / f"{name}.collectives.csv")
    own_attention = name if attention else shipped["attention_as"]
    own_published = name if attention else shipped["published_attention_as"]
    row = {
        **shipped, **_figures(base), "device": name, "attention_as": own_attention,
        "published_attention_as": own_published, "note": f"captured on {table.device}",
    }  # fmt: skip
    # a surface of another device stands for this one only if that device is in the folder as well
    others = {own_attention, shipped["experts_as"]} - {name}
    known = [row, *({**_device_row(each), "device": each} for each in sorted(others))]
    _write_csv(folder / "devices.csv", note, known)
    _write_csv(folder / "surfaces.csv", note, surfaces)
    _write_csv(folder / "memory_fraction.csv", note, [_memory_fraction(table, base, name)])
    described = f", off by {median(errors):.1%} at the median on {len(errors)} others" if errors else ""
    return (
        f"{base.name} now has the curves of {table.device} ({table.date}): "
        f"matrix multiplies ({multiplies}){described}, {len(attention)} attention kernels"
    )


def _figures(base: Device) -> Row:
    """What curves of a device are normalised by, from its profile.

    Raises:
        ProfileError: the profile states no peak in bf16, or no memory bandwidth.
    """
    if PRECISION not in base.peak_flop_per_s or base.memory_bandwidth_bytes_per_s is None:
        raise ProfileError(f"{base.name}: needs peak_flop_per_s of {PRECISION} and memory_bandwidth")
    peaks = {each: base.peak_flop_per_s.get(each) for each in (PRECISION, "fp8", "nvfp4")}
    return {
        # tiles and waves are not fitted, so that their number does not matter where it is unknown
        "multiprocessors": str(base.multiprocessors or 1),
        "memory_bytes_per_s": repr(base.memory_bandwidth_bytes_per_s),
        **{each: "" if peak is None else repr(peak) for each, peak in peaks.items()},
        "provenance": "specification",
    }


def _device_row(device: str) -> Row:
    return next(row for row in rows_of(MEASUREMENTS / "devices.csv") if row["device"] == device)


def _surface(
    device: str, kind: str, precision: str, launch_floor_s: float | None, points: int, errors: Sequence[float],
    source: str,
) -> Row:  # fmt: skip
    """A row of surfaces.csv; tiles and waves are not fitted."""
    own = ["1", "0.0", f"{launch_floor_s:.3g}"] if launch_floor_s is not None else ["", "", ""]
    nineties = quantiles(errors, n=10)[-1] if len(errors) > 1 else 0.0
    return {
        "device": device, "kind": kind, "precision": precision, "tile_rows": own[0], "wave_exponent": own[1],
        "launch_floor_s": own[2], "grid_points": str(points), "gaps_filled": "0", "left_out_rows": str(len(errors)),
        "left_out_median": f"{median(errors) if errors else 0.0:.3g}", "left_out_p90": f"{nineties:.3g}",
        "source": source,
    }  # fmt: skip


def _write_matmul(
    table: Table, base: Device, name: str, folder: Path, note: str
) -> tuple[list[Row], list[float]]:
    """Write the grids of rates of all precisions in the table.

    Returns rows of surfaces.csv, and the relative errors on the multiplies of layers.

    Raises:
        ProfileError: a grid has gaps, or grids differ in k, for which there is one row of names.
    """
    source = f"towtank kernels bench on {table.device}, {table.date}"
    lines: list[Row] = []
    surfaces: list[Row] = []
    errors: list[float] = []
    for precision, kernel in MULTIPLIES.items():
        rows = table.of("matmul", kernel)
        if not rows:
            continue
        axes, times = _grid(rows, MATMUL, f"matrix multiplies in {precision}")
        model = _roofline(table, base, precision)
        rates = {size: 2.0 * size[0] * size[1] * size[2] / time for size, time in times.items()}
        lines += [
            {"precision": precision, "m": str(m), "n": str(n)}
            | {str(k): f"{rates[m, n, k] / 1e12:.4g}" for k in axes[2]}
            for m in axes[0]
            for n in axes[1]
        ]
        if list(lines[0]) != list(lines[-1]):
            raise ProfileError(
                f"matrix multiplies in {precision} were measured at other k than those in {PRECISION}"
            )
        curve = MatmulCurve.from_rates(precision, model, axes, list(rates.values()))
        judged = [row for row in table.of("layer", kernel) if _key(row, MATMUL) not in times]
        own = [abs(curve.latency_s(*_sizes(row)) / row.time_s - 1) for row in judged]
        surfaces.append(_surface(name, "matmul", precision, model.launch_floor_s, len(rows), own, source))
        errors += own
    _write_csv(folder / f"{name}.matmul.csv", note, lines)
    return surfaces, errors


def _roofline(table: Table, base: Device, precision: str) -> RooflineModel:
    """What rates of a precision are kept relative to.

    Raises:
        ProfileError: the profile states no peak in it.
    """
    figures = _figures(base)
    if not figures[precision]:
        raise ProfileError(
            f"{base.name}: needs peak_flop_per_s of {precision}, in which the table holds matrix multiplies"
        )
    launches = table.of("launch", "fill")
    return RooflineModel(
        reference_peak_flop_per_s=float(figures[precision]),
        memory_bytes_per_s=float(figures["memory_bytes_per_s"]),
        multiprocessors=int(figures["multiprocessors"]),
        element_bytes=ELEMENT_BYTES[precision],
        launch_floor_s=float(f"{min((row.time_s for row in launches), default=0.0):.3g}"),
        tile_rows=1,
        wave_exponent=0.0,
    )


def _sizes(row: Measured) -> tuple[int, int, int]:
    return row.sizes["m"], row.sizes["n"], row.sizes["k"]


def _key(row: Measured, names: Sequence[str]) -> tuple[int, ...]:
    return tuple(row.sizes[name] for name in names)


def _grid(
    rows: Sequence[Measured], names: tuple[str, str, str], what: str
) -> tuple[tuple[list[int], list[int], list[int]], dict[tuple[int, ...], float]]:
    """Axes, and time by sizes with the last one fastest; every combination must be there.

    Raises:
        ProfileError: some are missing.
    """
    found = {_key(row, names): row.time_s for row in rows}
    first, second, third = (sorted({key[place] for key in found}) for place in range(3))
    wanted = [(one, two, three) for one in first for two in second for three in third]
    missing = [each for each in wanted if each not in found]
    if missing:
        raise ProfileError(
            f"{what}: {len(missing)} of {len(wanted)} combinations are missing, such as "
            f"{', '.join(f'{name}={value}' for name, value in zip(names, missing[0], strict=True))}; a sweep "
            "that was broken off is finished by running `towtank kernels bench` again with the same --out"
        )
    return (first, second, third), {key: found[key] for key in wanted}


def _write_attention(table: Table, rows: Sequence[Measured], name: str, folder: Path, note: str) -> None:
    """Write forward rates apart for multi-head and grouped heads, and times of backward over forward."""
    lines, ratios = [], []
    backward = {_key(row, ATTENTION): row.time_s for row in table.of("attention", "attention_backward")}
    kinds: dict[str, Callable[[Measured], bool]] = {
        "multi-head": lambda row: row.sizes["heads"] == row.sizes["kv_heads"],
        "grouped": lambda row: row.sizes["heads"] != row.sizes["kv_heads"],
    }
    for group, belongs in kinds.items():
        own = [row for row in rows if belongs(row)]
        # where grouped heads were not measured they are taken to cost what others do
        axes, times = _grid(own or rows, ATTENTION, f"{group} attention")
        for dim in axes[0]:
            for sequence in axes[1]:
                rates = {
                    str(heads): forward_flop(1, sequence, heads, dim) / times[dim, sequence, heads] / 1e12
                    for heads in axes[2]
                }
                head = {
                    "precision": PRECISION,
                    "group": group,
                    "head_dim": str(dim),
                    "sequence": str(sequence),
                }
                lines.append(head | {heads: f"{rate:.4g}" for heads, rate in rates.items()})
                both = [(dim, sequence, each) for each in axes[2] if (dim, sequence, each) in backward]
                if group == "multi-head" and both:
                    ratios.append((dim, sequence, median(backward[each] / times[each] for each in both)))
    _write_csv(folder / f"{name}.attention.csv", note, lines)
    published = [
        {
            "device": name, "implementation": "library", "head_dim": str(dim), "sequence": str(sequence),
            "forward_over_table": "1", "backward_over_forward_time": f"{ratio:.4g}", "source": table.software,
        }
        for dim, sequence, ratio in ratios
    ]  # fmt: skip
    _write_csv(folder / "published_attention.csv", note, published)


def _copied(device: str, kind: str, folder: Path) -> list[Row]:
    """Copy the curves of one kind of a shipped device; returns its rows of surfaces.csv."""
    rows = [
        row | {"source": ""}
        for row in rows_of(MEASUREMENTS / "surfaces.csv")
        if (row["device"], row["kind"]) == (device, kind) and row["grid_points"]
    ]
    if rows:
        shutil.copyfile(MEASUREMENTS / f"{device}.{kind}.csv", folder / f"{device}.{kind}.csv")
    return rows


def _copy_published(device: str, folder: Path) -> None:
    shutil.copyfile(MEASUREMENTS / "published_attention.csv", folder / "published_attention.csv")


def _memory_fraction(table: Table, base: Device, name: str) -> Row:
    """The best copy over the bandwidth that the device's profile states.

    Raises:
        ProfileError: there is no copy in the table, or no bandwidth in the profile.
    """
    # a copy reads and writes each element of 2 bytes
    rates = [4.0 * row.sizes["elements"] / row.time_s for row in table.of("copy", "copy")[-2:]]
    if not rates or base.memory_bandwidth_bytes_per_s is None:
        what = "the table holds no copies" if not rates else f"{base.name} states no memory_bandwidth"
        raise ProfileError(f"no share of the memory bandwidth can be worked out: {what}")
    best = max(rates)
    return {
        "device": name, "fraction": f"{min(1.0, best / base.memory_bandwidth_bytes_per_s):.4g}",
        "achieved_bytes_per_s": f"{best:.4g}", "method": "best copy of the largest sizes",
        "source": f"towtank kernels bench; {table.device}; {table.date}",
    }  # fmt: skip


def _write_csv(path: Path, note: str, rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows under their column names, below a line of notes."""
    listed = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{note}\n")
        if not listed:
            return
        writer = csv.DictWriter(file, list(listed[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
