"""Reading the compact measurement files."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log2
from pathlib import Path
from typing import TypeVar

from towtank.hardware_profiles.curves.attention import AttentionCurve, PublishedAttention
from towtank.hardware_profiles.curves.collectives import CollectiveCurve
from towtank.hardware_profiles.curves.experts import ExpertCurve
from towtank.hardware_profiles.curves.grid import Grid
from towtank.hardware_profiles.curves.matmul import ELEMENT_BYTES, MatmulCurve, RooflineModel
from towtank.hardware_profiles.errors import ProfileError

Row = dict[str, str]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """A row of devices.csv: what the curves of a measured device are normalised by."""

    name: str
    multiprocessors: int
    memory_bytes_per_s: float
    peaks: Mapping[str, float]
    provenance: str
    attention_as: str
    published_attention_as: str
    experts_as: str
    note: str

    def peak_flop_per_s(self, precision: str) -> float:
        """Dense peak of a precision of the tables (`fp8-block` runs at the rate of fp8)."""
        key = "fp8" if precision == "fp8-block" else precision
        if key not in self.peaks:
            raise ProfileError(
                f"measurements/devices.csv gives no {key} peak for {self.name}; add it with its source"
            )
        return self.peaks[key]


class LazyMapping(Mapping[str, Value]):
    """A read-only mapping whose values are made when first asked for: one precision costs milliseconds."""

    def __init__(self, names: Sequence[str], make: Callable[[str], Value]) -> None:
        self._names = tuple(names)
        self._make = cache(make)

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def rows_of(path: Path) -> list[Row]:
    """Rows of a CSV file with `#` comments, as text by column."""
    header, *cells = _cells(path)
    return [dict(zip(header, row, strict=True)) for row in cells]


def _cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(line for line in file if not line.startswith("#")))


def device_figures(folder: Path) -> dict[str, DeviceFigures]:
    """Devices of a measurements folder by name; empty when it has no devices.csv."""
    path = folder / "devices.csv"
    if not path.is_file():
        return {}
    return {
        row["device"]: DeviceFigures(
            name=row["device"],
            multiprocessors=int(row["multiprocessors"]),
            memory_bytes_per_s=float(row["memory_bytes_per_s"]),
            peaks={p: float(row[p]) for p in ("bf16", "fp8", "nvfp4") if row[p]},
            provenance=row["provenance"],
            attention_as=row["attention_as"],
            published_attention_as=row["published_attention_as"],
            experts_as=row.get("experts_as") or row["device"],
            note=row["note"],
        )
        for row in rows_of(path)
    }


def surface_rows(folder: Path, device: str, kind: str) -> dict[str, Row]:
    """Rows of surfaces.csv of one device and kind by precision; rows without a fit only state errors."""
    rows = rows_of(folder / "surfaces.csv")
    own = [row for row in rows if row["device"] == device and row["kind"] == kind]
    return {row["precision"]: row for row in own if row["grid_points"]}


def load_matmul(folder: Path, figures: DeviceFigures) -> Mapping[str, MatmulCurve]:
    """Matrix-multiply curves by precision."""
    surfaces = surface_rows(folder, figures.name, "matmul")
    if not surfaces:
        return {}
    header, *body = _cells(folder / f"{figures.name}.matmul.csv")

    def make(precision: str) -> MatmulCurve:
        rows = [row for row in body if row[0] == precision]
        surface = surfaces[precision]
        model = RooflineModel(
            reference_peak_flop_per_s=figures.peak_flop_per_s(precision),
            memory_bytes_per_s=figures.memory_bytes_per_s,
            multiprocessors=figures.multiprocessors,
            element_bytes=ELEMENT_BYTES[precision],
            launch_floor_s=float(surface["launch_floor_s"]),
            tile_rows=int(surface["tile_rows"]),
            wave_exponent=float(surface["wave_exponent"]),
        )
        axes = (_distinct(rows, 1), _distinct(rows, 2), [int(x) for x in header[3:]])
        return MatmulCurve.from_rates(
            precision, model, axes, [float(x) * 1e12 for row in rows for x in row[3:]]
        )

    return LazyMapping(tuple(surfaces), make)


def load_attention(folder: Path, figures: DeviceFigures) -> Mapping[str, AttentionCurve]:
    """Attention curves by precision; those of `attention_as`, scaled by the peaks."""
    surfaces = surface_rows(folder, figures.attention_as, "attention")
    if not surfaces:
        return {}
    measured = device_figures(folder)[figures.attention_as]
    header, *body = _cells(folder / f"{measured.name}.attention.csv")
    published = load_published(folder, figures.published_attention_as)

    def make(precision: str) -> AttentionCurve:
        grids = {}
        peak = figures.peak_flop_per_s(precision)
        unit = 1e12 * peak / measured.peak_flop_per_s(precision)
        for group in ("multi-head", "grouped"):
            rows = [row for row in body if row[0] == precision and row[1] == group]
            axes = (_distinct(rows, 2), _distinct(rows, 3), [int(x) for x in header[4:]])
            grids[group] = Grid.of(axes, [log2(float(x) * unit) for row in rows for x in row[4:]])
        return AttentionCurve(precision, peak, grids["multi-head"], grids["grouped"], published)

    return LazyMapping(tuple(surfaces), make)


def load_published(folder: Path, device: str) -> dict[str, PublishedAttention]:
    """Published attention figures of `device` by implementation, and as `best` the newest of them."""
    rows = [row for row in rows_of(folder / "published_attention.csv") if row["device"] == device]
    published = {}
    for implementation in dict.fromkeys(row["implementation"] for row in rows):
        own = sorted(
            (row for row in rows if row["implementation"] == implementation),
            key=lambda row: (int(row["head_dim"]), int(row["sequence"])),
        )
        axes = tuple(sorted({int(row[column]) for row in own}) for column in ("head_dim", "sequence"))
        forward = [float(row["forward_over_table"]) for row in own if row["forward_over_table"]]
        published[implementation] = PublishedAttention(
            device=device,
            implementation=implementation,
            forward_over_table=Grid.of(axes, forward) if forward else None,
            backward_over_forward_time=Grid.of(
                axes, [float(row["backward_over_forward_time"]) for row in own]
            ),
            source=own[0]["source"],
        )
    if published:
        published["best"] = published.get("cudnn", published[min(published)])
    return published


def load_experts(folder: Path, figures: DeviceFigures) -> Mapping[str, ExpertCurve]:
    """Expert-layer curves by precision; those of `experts_as` over the roofline of the device itself."""
    surfaces = surface_rows(folder, figures.experts_as, "experts")
    if not surfaces:
        return {}
    header, *body = _cells(folder / f"{figures.experts_as}.experts.csv")

    def grids(precision: str, columns: Sequence[int]) -> dict[str, Grid]:
        # a row belongs to the sizes (columns 2 to 4) or to the expert degree (column 5); the others are empty
        found = {}
        for routing in ("balanced", "power_law"):
            rows = [row for row in body if row[:2] == [precision, routing] and row[columns[0]]]
            axes = (*(_distinct(rows, column) for column in columns), [int(x) for x in header[6:]])
            found[routing] = Grid.of(axes, [log2(float(x)) for row in rows for x in row[6:]])
        return found

    def make(precision: str) -> ExpertCurve:
        return ExpertCurve(
            precision=precision,
            reference_peak_flop_per_s=figures.peak_flop_per_s(precision),
            memory_bytes_per_s=figures.memory_bytes_per_s,
            element_bytes=ELEMENT_BYTES[precision],
            residual=grids(precision, (2, 3, 4)),
            degree=grids(precision, (5,)),
        )

    return LazyMapping(tuple(surfaces), make)


def load_collectives(folder: Path, figures: DeviceFigures) -> CollectiveCurve | None:
    """Collectives of the device's node, or None where none were measured."""
    path = folder / f"{figures.name}.collectives.csv"
    if not path.is_file():
        return None
    header, *body = _cells(path)
    sizes = [int(x) for x in header[2:]]
    times: dict[str, dict[int, Grid]] = {}
    for operation, count, *microseconds in body:
        times.setdefault(operation, {})[int(count)] = Grid.of(
            [sizes], [log2(float(x) * 1e-6) for x in microseconds]
        )
    return CollectiveCurve(times, float(sizes[-1]))


def _distinct(rows: list[list[str]], column: int) -> list[int]:
    return list(dict.fromkeys(int(row[column]) for row in rows))
