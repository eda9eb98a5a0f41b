"""Tables of measurements on disk: written row by row, and gone on with after a break."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from towtank.kernels.bench import COLUMNS, Measurement, sizes_text
from towtank.kernels.device import device_name, software
from towtank.kernels.errors import KernelError
from towtank.kernels.sweeps import Point


def write(path: Path, rows: Iterable[Measurement]) -> None:
    """Write a table of measurements.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(_line(COLUMNS) + "".join(_text(row) for row in rows), encoding="utf-8")


def append(path: Path, row: Measurement) -> None:
    """Add one measurement to a table, or start it; it is on the disk when this returns.

    Raises:
        OSError: the file cannot be written.
    """
    start = "" if path.exists() and path.stat().st_size else _line(COLUMNS)
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(start + _text(row))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # of a full disk it does not say whose
        raise OSError(error.errno, error.strerror, str(path)) from error


def left(path: Path, points: Sequence[Point], device: str, backend: str) -> list[Point]:
    """Points of a sweep that a table of this device does not hold yet; a line that was broken off is removed.

    Raises:
        KernelError: the file is no such table, or one of another device, software or backend.
        OSError: the file cannot be read or written.
    """
    if not path.exists() or not path.stat().st_size:
        return list(points)
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.partition("\n")[0] != _line(COLUMNS).rstrip("\n"):
        raise KernelError(f"{path} is no table of `towtank kernels bench`; choose another name")
    whole = text[: text.rindex("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(whole)))
    here = {"device": device_name(device), "software": software(device)}
    for name, value in here.items():
        if others := sorted({row[name] for row in rows} - {value}):
            raise KernelError(
                f"{path} was measured on another {name} ({others[0]}; here {value}); choose another name"
            )
    if others := sorted(
        {row["backend"] for row in rows if row["kind"] not in ("copy", "launch")} - {backend}
    ):
        raise KernelError(f"{path} holds measurements of backend {others[0]}; choose another name")
    held = {(row["kind"], row["kernel"], row["dtype"], row["sizes"]) for row in rows}
    return [
        each for each in points if (each.kind, each.kernel, each.dtype, sizes_text(each.sizes)) not in held
    ]


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _text(row: Measurement) -> str:
    return _line([f"{each:.6g}" if isinstance(each, float) else each for each in asdict(row).values()])
