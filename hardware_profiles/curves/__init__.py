"""Measured kernel and collective curves of devices, in compact form.

`load_curves` reads those of one measured device. A profile of another device names in `measured_as` the
device whose shape dependence it borrows and scales the efficiencies by its own peak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from towtank.hardware_profiles.curves.attention import AttentionCurve
from towtank.hardware_profiles.curves.collectives import CollectiveCurve
from towtank.hardware_profiles.curves.experts import ExpertCurve
from towtank.hardware_profiles.curves.loading import (
    DeviceFigures,
    Row,
    device_figures,
    load_attention,
    load_collectives,
    load_experts,
    load_matmul,
    rows_of,
)
from towtank.hardware_profiles.curves.matmul import MatmulCurve
from towtank.hardware_profiles.curves.network import (
    MEASUREMENTS,
    BusBandwidthPoint,
    network_bus_bandwidth_points,
)
from towtank.hardware_profiles.errors import UnknownProfile
from towtank.hardware_profiles.nearest import did_you_mean

__all__ = [
    "AttentionCurve",
    "BusBandwidthPoint",
    "CollectiveCurve",
    "DeviceCurves",
    "ExpertCurve",
    "MatmulCurve",
    "MemoryFraction",
    "load_curves",
    "measured_devices",
    "network_bus_bandwidth_points",
]


@dataclass(frozen=True, slots=True)
class MemoryFraction:
    """Memory bandwidth reached over that of the data sheet."""

    device: str
    value: float
    achieved_bytes_per_s: float
    method: str
    source: str


@dataclass(frozen=True, slots=True)
class DeviceCurves:
    """What was measured on one device; the mappings are by precision (bf16, fp8, fp8-block, nvfp4)."""

    device: str
    matmul: Mapping[str, MatmulCurve]
    attention: Mapping[str, AttentionCurve]
    experts: Mapping[str, ExpertCurve]
    """Empty for devices without measured expert layers."""
    collectives: CollectiveCurve | None
    """None where no usable collectives were measured inside the node."""
    memory_fractions: tuple[MemoryFraction, ...]
    """The device's own streaming measurement first, then others of its family."""
    surfaces: tuple[Mapping[str, str], ...]
    """Rows of surfaces.csv: how each curve was fitted and its errors on shapes left out."""
    folder: Path

    @property
    def memory_fraction(self) -> float | None:
        """Achieved over specified memory bandwidth, or None where it is unknown."""
        return self.memory_fractions[0].value if self.memory_fractions else None

    @property
    def provenance(self) -> str:
        """What each curve stands on and how far off it is on shapes that were held out."""
        return self.provenance_for(self.device)

    def provenance_for(self, device: str) -> str:
        """`provenance`, saying whose shape dependence it is when `device` is not the measured one."""
        lines = (
            [] if device == self.device else [f"{device}: not measured; shape dependence of {self.device}"]
        )
        lines += [_describe(row) for row in self.surfaces]
        if self.collectives is not None:
            lines.append(f"collectives inside the node: measured on {self.device}, NCCL, 512 B to 512 MiB")
        else:
            lines.append(f"collectives inside the node: no usable measurement of {self.device}")
        lines += [
            f"memory: {m.value:.1%} of the data sheet ({m.method}; {m.source})" for m in self.memory_fractions
        ]
        return "\n".join(lines)


def _describe(row: Row | Mapping[str, str]) -> str:
    return (
        f"{row['kind']} {row['precision']}: measured on {row['device']} "
        f"({row.get('source') or 'aiconfigurator 095f58a51'}), "
        f"{row['grid_points']} grid points; error on {row['left_out_rows']} kernels of shapes left out "
        f"median {float(row['left_out_median']):.1%}, 90th percentile {float(row['left_out_p90']):.1%}"
    )


def measured_devices(profile_dirs: Sequence[Path] = ()) -> tuple[str, ...]:
    """Names of the devices that have curves, own folders first."""
    return tuple(dict.fromkeys(name for folder in _folders(profile_dirs) for name in device_figures(folder)))


def load_curves(measured_as: str, profile_dirs: Sequence[Path] = ()) -> DeviceCurves:
    """Curves of the measured device `measured_as`, from `DIR/measurements` of a folder or the built-in ones.

    Raises `UnknownProfile` naming the nearest measured devices. The result is cached.
    """
    return _load(measured_as, tuple(profile_dirs))


@lru_cache(maxsize=32)
def _load(measured_as: str, profile_dirs: tuple[Path, ...]) -> DeviceCurves:
    for folder in _folders(profile_dirs):
        figures = device_figures(folder).get(measured_as)
        if figures is not None:
            return _read(folder, figures)
    known = measured_devices(profile_dirs)
    raise UnknownProfile(
        f"no measured curves of {measured_as!r}{did_you_mean(measured_as, known)}; "
        f"measured_as must be one of {', '.join(sorted(known))}"
    )


def _folders(profile_dirs: Sequence[Path]) -> list[Path]:
    return [*(Path(folder) / "measurements" for folder in profile_dirs), MEASUREMENTS]


def _read(folder: Path, figures: DeviceFigures) -> DeviceCurves:
    return DeviceCurves(
        device=figures.name,
        matmul=load_matmul(folder, figures),
        attention=load_attention(folder, figures),
        experts=load_experts(folder, figures),
        collectives=load_collectives(folder, figures),
        memory_fractions=_memory_fractions(folder, figures.name),
        surfaces=tuple(
            row
            for row in rows_of(folder / "surfaces.csv")
            if row["grid_points"] and row["device"] == _source(row, figures)
        ),
        folder=folder,
    )


def _source(row: Row, figures: DeviceFigures) -> str:
    """Device whose surface of this kind stands for `figures`."""
    stand_ins = {"attention": figures.attention_as, "experts": figures.experts_as}
    return stand_ins.get(row["kind"], figures.name)


def _memory_fractions(folder: Path, device: str) -> tuple[MemoryFraction, ...]:
    return tuple(
        MemoryFraction(
            device=row["device"],
            value=float(row["fraction"]),
            achieved_bytes_per_s=float(row["achieved_bytes_per_s"]),
            method=row["method"],
            source=row["source"],
        )
        for row in rows_of(folder / "memory_fraction.csv")
        if row["device"] == device
    )
