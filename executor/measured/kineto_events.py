"""Events of a Chrome trace that the PyTorch profiler (Kineto) has written, and what the host ran around each."""

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Final

from towtank.executor.errors import RecordError

_HOST: Final = frozenset(("cpu_op", "user_annotation", "operator"))
_DEVICE: Final = frozenset(("kernel", "gpu_memcpy", "gpu_memset"))
_LAUNCH: Final = frozenset(("cuda_runtime", "cuda_driver", "runtime", "hip_runtime"))
STEP: Final = "ProfilerStep#"
_GZIP: Final = b"\x1f\x8b"


@dataclass(slots=True)
class Event:
    """One event; times in microseconds of the trace."""

    name: str
    category: str
    start: float
    finish: float
    thread: tuple[Any, Any]
    arguments: Mapping[str, Any]
    outer: "Event | None" = None
    """The event of the same thread around this one; for what runs on a device, the host's that launched it."""

    def stack(self) -> list[str]:
        """Names of the events around this one, innermost first."""
        names, event = [], self.outer
        while event is not None:
            names.append(event.name)
            event = event.outer
        return names


@dataclass(frozen=True, slots=True)
class Trace:
    """What a trace holds."""

    host: tuple[Event, ...]
    device: tuple[Event, ...]
    steps: tuple[Event, ...]
    """Marks of the profiler's steps, on the device's clock where the trace has them."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """Everything but the events."""
    peak_bytes: float | None = None
    """Most memory allocated, of the accelerator if there is one; None where the profiler did not watch it."""


def looks_like_trace(path: Path) -> bool:
    """Whether a file is a Chrome trace, by how it begins; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
        if head.startswith(_GZIP):
            head = zlib.decompressobj(wbits=31).decompress(head, 1 << 16)
    except (OSError, zlib.error):
        return False
    return head.lstrip()[:1] in (b"{", b"[") and (b'"traceEvents"' in head or b'"ph"' in head)


def read_trace(path: Path) -> Trace:
    """Read a trace, compressed or not.

    Raises:
        RecordError: the file cannot be read or is no trace of the profiler.
    """
    document = _document(path)
    listed = document.pop("traceEvents", None)
    if not isinstance(listed, list):
        raise RecordError(
            f"{path}: is no Chrome trace (no `traceEvents`); give what torch.profiler's export_chrome_trace wrote"
        )
    complete = [one for one in listed if isinstance(one, dict) and one.get("ph") == "X"]
    try:
        host = [_event(one) for one in complete if _category(one) in _HOST]
        device = [_event(one) for one in complete if _category(one) in _DEVICE]
        marks = [_event(one) for one in complete if str(one.get("name", "")).startswith(STEP)]
        launches = [one for one in complete if _category(one) in _LAUNCH]
        peak = _peak_bytes(listed)
        host = [one for one in host if not one.name.startswith(STEP)]
        _nest(host)
        _link(device, host, launches)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{path}: an event lacks its name, time or duration, or they are no numbers: {error}"
        ) from error
    if not host and not device:
        raise RecordError(f"{path}: holds no operators and no kernels; record with torch.profiler")
    of_device = [one for one in marks if one.category == "gpu_user_annotation"]
    steps = (
        of_device if device and of_device else [one for one in marks if one.category != "gpu_user_annotation"]
    )
    return Trace(tuple(host), tuple(device), tuple(sorted(steps, key=lambda one: one.start)), document, peak)


def _document(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        document = json.loads(gzip.decompress(raw) if raw.startswith(_GZIP) else raw)
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: is no JSON, or was not written to its end: {error}") from error
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    if isinstance(document, list):
        return {"traceEvents": document}
    return document if isinstance(document, dict) else {}


def _category(raw: Mapping[str, Any]) -> str:
    return str(raw.get("cat", "")).lower()


def _event(raw: Mapping[str, Any]) -> Event:
    start, length = float(raw["ts"]), float(raw["dur"])
    if not (isfinite(start) and isfinite(length) and length >= 0):
        raise ValueError(f"{raw['name']}: ts {start}, dur {length}")
    arguments = raw.get("args")
    return Event(
        str(raw["name"]),
        _category(raw),
        start,
        start + length,
        (raw.get("pid"), raw.get("tid")),
        arguments if isinstance(arguments, dict) else {},
    )


def _nest(events: Sequence[Event]) -> None:
    """Find the event around each one of the same thread."""
    threads: dict[tuple[Any, Any], list[Event]] = defaultdict(list)
    for one in events:
        threads[one.thread].append(one)
    for listed in threads.values():
        listed.sort(key=lambda one: (one.start, -one.finish))
        stack: list[Event] = []
        for one in listed:
            while stack and stack[-1].finish <= one.start:
                stack.pop()
            one.outer = stack[-1] if stack else None
            stack.append(one)


def _link(device: Sequence[Event], host: Sequence[Event], launches: Sequence[Mapping[str, Any]]) -> None:
    """Find the operator that launched each kernel: by its external id, else by that of the call that launched it."""
    operators: dict[Any, Event] = {}
    for one in host:
        identity = one.arguments.get("External id")
        if identity is not None:
            operators[identity] = one
    calls = {
        call["args"]["correlation"]: call["args"].get("External id")
        for call in launches
        if isinstance(call.get("args"), dict) and "correlation" in call["args"]
    }
    for one in device:
        identity = one.arguments.get("External id", calls.get(one.arguments.get("correlation")))
        one.outer = operators.get(identity)


def _peak_bytes(listed: Sequence[Any]) -> float | None:
    peaks: dict[int, float] = {}
    for one in listed:
        if isinstance(one, dict) and one.get("name") == "[memory]":
            arguments = one["args"]
            kind = int(arguments.get("Device Type", 0))
            peaks[kind] = max(peaks.get(kind, 0.0), float(arguments.get("Total Allocated", 0)))
    return peaks[max(peaks)] if peaks else None
