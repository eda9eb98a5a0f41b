"""Published bus bandwidths, inside and between nodes, as a list of points."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from towtank.hardware_profiles.curves.loading import rows_of

MEASUREMENTS = Path(__file__).resolve().parent.parent / "measurements"


@dataclass(frozen=True, slots=True)
class BusBandwidthPoint:
    """One published measurement of one collective."""

    system: str
    operation: str
    num_devices: int | None
    nodes: int | None
    message_bytes: float | None
    bandwidth_bytes_per_s: float
    convention: str
    """`bus`: nccl-tests bus bandwidth. `unstated`: bus or algorithm bandwidth, the source does not say.
    `achieved`: as the source calls it."""
    source: str
    note: str


def network_bus_bandwidth_points(
    system: str | None = None, operation: str | None = None, nodes: int | None = None
) -> tuple[BusBandwidthPoint, ...]:
    """Published points of `system` (part of its name, any case), `operation` and `nodes` where given."""
    return tuple(
        point
        for point in _points()
        if (system is None or system.lower() in point.system.lower())
        and (operation is None or operation == point.operation)
        and (nodes is None or nodes == point.nodes)
    )


@lru_cache(maxsize=1)
def _points() -> tuple[BusBandwidthPoint, ...]:
    return tuple(
        BusBandwidthPoint(
            system=row["system"],
            operation=row["operation"],
            num_devices=int(row["num_devices"]) if row["num_devices"] else None,
            nodes=int(row["nodes"]) if row["nodes"] else None,
            message_bytes=float(row["message_bytes"]) if row["message_bytes"] else None,
            bandwidth_bytes_per_s=float(row["bandwidth_bytes_per_s"]),
            convention=row["convention"],
            source=row["source"],
            note=row["note"],
        )
        for row in rows_of(MEASUREMENTS / "network_curves.csv")
    )
