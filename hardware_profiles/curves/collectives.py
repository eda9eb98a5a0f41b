"""NCCL collectives inside one node, as measured."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Literal

from towtank.hardware_profiles.curves.grid import Grid
from towtank.hardware_profiles.errors import ProfileError

Operation = Literal["all_gather", "all_reduce", "reduce_scatter", "all_to_all"]


def bus_factor(operation: str, num_devices: int) -> float:
    """Bytes over the busiest link per byte of the whole array: the nccl-tests convention of bus bandwidth."""
    share = (num_devices - 1) / num_devices
    return 2.0 * share if operation == "all_reduce" else share


@dataclass(frozen=True, slots=True)
class CollectiveCurve:
    """Measured times of one device's node. A message is the whole array: what all_gather ends with and
    reduce_scatter starts with on each device.

    Between the measured sizes the time is linear in log-log; below the smallest it is constant (latency);
    above the largest the bus bandwidth is constant. Between the measured device counts (2, 4, 8) the bus
    bandwidth is linear in log2 of the count, outside of them that of the nearest count is used.
    """

    log_times: Mapping[str, Mapping[int, Grid]]
    """log2 of seconds by operation and device count, on the message size."""
    largest_message_bytes: float

    def time_s(self, operation: Operation, num_devices: int, message_bytes: float) -> float:
        """Seconds of one collective of `message_bytes` among `num_devices` of one node."""
        if num_devices <= 1 or message_bytes <= 0:
            return 0.0
        return (
            bus_factor(operation, num_devices)
            * message_bytes
            / self.bus_bandwidth(operation, num_devices, message_bytes)
        )

    def bus_bandwidth(self, operation: Operation, num_devices: int, message_bytes: float) -> float:
        """Bus bandwidth in bytes/s: `bus_factor` times message bytes over time."""
        grids = self.log_times.get(operation)
        if grids is None:
            raise ProfileError(f"no measured operation {operation!r}; choose one of {sorted(self.log_times)}")
        counts = sorted(grids)
        above = bisect_right(counts, num_devices)
        lower, upper = counts[max(above - 1, 0)], counts[min(above, len(counts) - 1)]
        low = self._measured(operation, grids[lower], lower, message_bytes)
        if lower == num_devices or lower >= upper or num_devices < lower:
            return low
        high = self._measured(operation, grids[upper], upper, message_bytes)
        return float(low + (high - low) * log2(num_devices / lower) / log2(upper / lower))

    def is_clamped(self, operation: Operation, num_devices: int, message_bytes: float) -> bool:
        """Tell whether the count or the size lies outside of the measured ones."""
        grids = self.log_times[operation]
        outside = not min(grids) <= num_devices <= max(grids)
        return outside or next(iter(grids.values())).is_clamped((message_bytes,))

    def _measured(self, operation: str, grid: Grid, num_devices: int, message_bytes: float) -> float:
        beyond = max(message_bytes / self.largest_message_bytes, 1.0)
        time: float = beyond * 2.0 ** grid.at((message_bytes,))
        return bus_factor(operation, num_devices) * message_bytes / time
