"""Collectives inside a node, published network points, and memory bandwidth reached."""

import re
from itertools import accumulate

import pandas as pd

from towtank.hardware_profiles.compact.tables import filled, short
from towtank.hardware_profiles.curves.loading import DeviceFigures

OPERATIONS = {
    "all_gather": "all_gather",
    "all_reduce": "all_reduce",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}
LISTED_OPERATIONS = {
    "allgather": "all_gather",
    "allreduce": "all_reduce",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
}

# Our name of the nearest measured device, and the GB/s that SimuMax divides by.
SIMUMAX_DEVICES = {"A100-PCIe-80GB": ("a100-80gb-sxm", 1600.0), "B200": ("b200", 8000.0)}

STREAMED_WEIGHTS = 2**27  # n x k from which a multiply of 128 rows is a read of its weights


def collective_rows(frame: pd.DataFrame) -> tuple[list[int], list[list[object]], int]:
    """Message sizes, rows (operation, devices, microseconds...) and how many times were raised.

    A time below that of a smaller message is measurement noise and is raised to it. A left-out size takes the time on
    the line in log-log between its neighbours, below them that of the smallest (latency), above them on the line
    through the last two.
    """
    sizes = sorted({int(x) for x in frame.message_bytes})
    rows: list[list[object]] = []
    raised = 0
    for (operation, count), group in frame.groupby(["operation", "num_gpus"]):
        times = dict(zip(group.message_bytes.tolist(), group.latency_us.tolist(), strict=True))
        rising = dict(
            zip(sorted(times), accumulate((times[size] for size in sorted(times)), max), strict=True)
        )
        raised += sum(rising[size] != time for size, time in times.items())
        *_, second, largest = sorted(rising)
        if largest < sizes[-1]:  # left out: a latency and a bandwidth, from the last two
            per_byte = (rising[largest] - rising[second]) / (largest - second)
            rising[sizes[-1]] = rising[largest] + per_byte * (sizes[-1] - largest)
        complete, _ = filled({(size,): time for size, time in rising.items()}, [sizes])
        rows.append([operation, count, *(short(time, 4) for time in complete)])
    return sizes, rows, raised


def network_rows(measurements: pd.DataFrame) -> list[list[object]]:
    """Rows of network_curves.csv: collectives that somebody other than aiconfigurator published in GB/s."""
    rows: list[list[object]] = []
    for entry in measurements.itertuples():
        convention = _convention(str(entry.unit))
        if entry.kind not in LISTED_OPERATIONS or convention is None or "aiconfigurator" in str(entry.source):
            continue
        text = str(entry.shape_or_bytes)
        rows.append(
            [
                _cell(entry.accelerator_or_system),
                LISTED_OPERATIONS[str(entry.kind)],
                _integer(entry.world_size),
                _integer(entry.nodes),
                _message_bytes(text),
                short(float(str(entry.value)) * 1e9, 6),
                convention,
                _cell(entry.source),
                _cell(entry.notes),
            ]
        )
    return rows


def _message_bytes(text: str) -> object:
    """Bytes of a size given as a number, or as "256 MB"; empty where the source gives none."""
    found = re.match(r"(\d+)\s*(MB|$)", text)
    if found is None:
        return ""
    return int(found[1]) * (10**6 if found[2] else 1)


def _convention(unit: str) -> str | None:
    if unit.startswith("GB/s busbw"):
        return "bus"
    if "not stated" in unit:
        return "unstated"
    return "achieved" if unit == "GB/s achieved" else None


def _integer(value: object) -> object:
    return "" if pd.isna(value) else int(float(str(value)))  # type: ignore[call-overload]


def _cell(value: object) -> str:
    return '"' + ("" if pd.isna(value) else str(value).replace('"', "'")) + '"'  # type: ignore[call-overload]


def memory_row(frame: pd.DataFrame, figures: DeviceFigures) -> list[object]:
    """Row of memory_fraction.csv: the fastest stream of bf16 weights by multiplies of 128 rows."""
    rows = frame[(frame.precision == "bf16") & (frame.m == 128) & (frame.n * frame.k >= STREAMED_WEIGHTS)]
    moved = 2.0 * (rows.n * rows.k + 128.0 * (rows.n + rows.k))
    reached = float((moved / rows.latency_us).max()) * 1e6
    return [
        figures.name,
        short(reached / figures.memory_bytes_per_s),
        short(reached, 4),
        "weights streamed by the fastest matrix multiply of 128 rows; a lower bound on a100-80gb-sxm",
        "ai-dynamo/aiconfigurator gemm_perf (commit 095f58a51)",
    ]


def other_memory_rows(measurements: pd.DataFrame) -> list[list[object]]:
    """Fitted fractions of element-wise kernels that others published, as alternatives to our stream."""
    rows = measurements[
        measurements.source.str.contains("SimuMax") & (measurements.shape_or_bytes == "default kernel")
    ]
    found: list[list[object]] = []
    for system, value, note, place in zip(
        rows.accelerator_or_system, rows.value, rows.notes, rows.source_locator, strict=True
    ):
        device, divisor = SIMUMAX_DEVICES[system]
        method = f"element-wise kernels of {system} with a {note}; GB as its file names them"
        found.append([device, short(float(value) / divisor), short(float(value) * 1e9, 4), method, place])
    return found
