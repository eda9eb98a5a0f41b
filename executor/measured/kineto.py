"""A trace of the PyTorch profiler, of any framework, as a record: as far as its names tell what ran.

Where the trace has kernels, the device's time is accounted for; else the host's operators. Every moment of the steps
belongs to one operation (`exposure`), so communication is exposed where nothing computes beside it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from towtank.executor.errors import RecordError
from towtank.executor.measured.combine import UNNAMED, is_communication, row_of
from towtank.executor.measured.exposure import Piece, exposed
from towtank.executor.measured.kineto_events import Event, Trace, read_trace
from towtank.executor.measured.kineto_kinds import COPY, ELEMENTWISE, kinds
from towtank.executor.measured.run_record import SCHEMA, RunRecord
from towtank.executor.measured.spans import Key
from towtank.simulator.operations import Phase
from towtank.simulator.record import OperationTime, StepRecord

IDLE: Final = "idle"
"""Row of time in which the device has nothing to do."""
_US: Final = 1e-6
_LONGEST_NAME: Final = 80


def import_trace(
    path: Path, version: str, *, model: str | None = None, stack: str | None = None
) -> RunRecord:
    """Read a trace (`version` of towtank goes into the record).

    Raises:
        RecordError: the file cannot be read, is no trace of the profiler, or holds no whole step.
    """
    trace = read_trace(path)
    events = trace.device or trace.host
    start, finish, num_steps = _window(trace, events)
    inside = [one for one in events if one.start < finish and one.finish > start]
    if not inside or finish <= start:
        raise RecordError(
            f"{path}: nothing ran within the steps of the profiler; trace at least one whole step"
        )
    keys = [_key(one, bool(trace.device)) for one in inside]
    pieces = [
        Piece(one.start, one.finish, _beside(one, key, trace)) for one, key in zip(inside, keys, strict=True)
    ]
    shares, idle = exposed(pieces, start, finish)
    scale = _US / num_steps
    rows: dict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for key, piece, share in zip(keys, pieces, shares, strict=True):
        # what a host's operator contains counts there
        rows[key][0] += (piece.finish - piece.start if trace.device or piece.beside else share) * scale
        rows[key][1] += share * scale
    row = IDLE if trace.device else UNNAMED
    rest = Key(row, row, Phase.FORWARD)
    rows[rest][0] += idle * scale
    rows[rest][1] += idle * scale
    step = _step(rows, (finish - start) * scale, trace.peak_bytes)
    notes = _notes(trace, num_steps, [key.kind for key in keys])
    return RunRecord(SCHEMA, version, "kineto", step, model, stack, notes=notes)


def _window(trace: Trace, events: Sequence[Event]) -> tuple[float, float, int]:
    """First and last microsecond of the profiler's steps, and their number; the whole trace where it has none."""
    if trace.steps:
        return trace.steps[0].start, max(one.finish for one in trace.steps), len(trace.steps)
    return min(one.start for one in events), max(one.finish for one in events), 1


def _beside(event: Event, key: Key, trace: Trace) -> bool:
    """Whether an event yields to compute: collectives and copies, but not the host's calls that start them."""
    if trace.device:
        return is_communication(key.kind) or key.kind == COPY
    return is_communication(key.kind) and event.outer is None


def _key(event: Event, on_device: bool) -> Key:
    """Name, kind and phase of an event."""
    known, stack = kinds(), event.stack()
    if known.is_communication(event.name):
        kind = known.collective(event.name, event.arguments)
        size = event.arguments.get("Group size")
        name = f"{kind} of {size}" if isinstance(size, int) and not kind.endswith(str(size)) else kind
        return Key(name, kind, _phase(stack))
    if event.category in ("gpu_memcpy", "gpu_memset"):
        return Key(event.name, COPY, _phase(stack))
    operators = stack if on_device else [event.name, *stack]
    kind = known.of_kernel(event.name, operators) if on_device else known.of_stack(operators)
    phase = Phase.OPTIMIZER if kind in ("optimizer", "gradient norm") else _phase(operators)
    return Key(_name(event, operators, phase), kind, phase)


def _phase(stack: Sequence[str]) -> Phase:
    """Backward under a node of autograd; recomputation where that runs forward operators."""
    known = kinds()
    if not any(known.backward.search(name) for name in stack):
        return Phase.FORWARD
    if any(known.recompute.search(name) for name in stack):
        return Phase.RECOMPUTE
    return Phase.BACKWARD


def _name(event: Event, operators: Sequence[str], phase: Phase) -> str:
    """The outermost operator around it (the node of autograd without its engine), else the kernel's own name.

    Of recomputation it is the forward operator, not the node of autograd that asked for it.
    """
    known = [name for name in operators if not name.startswith("autograd::engine")]
    if phase is Phase.RECOMPUTE:
        known = [name for name in known if not kinds().backward.search(name)] or known
    if known:
        return known[-1][:_LONGEST_NAME]
    return event.name.removeprefix("void ").partition("<")[0].partition("(")[0][:_LONGEST_NAME]


def _step(rows: dict[Key, list[float]], step_time_s: float, peak_bytes: float | None) -> StepRecord:
    breakdown: dict[str, float] = defaultdict(float)
    for key, (_, exposed_s) in rows.items():
        breakdown[row_of(key)] += exposed_s
    return StepRecord(
        "measured",
        step_time_s,
        dict(sorted(breakdown.items(), key=lambda part: -part[1])),
        tuple(OperationTime(key.name, key.kind, str(key.phase), *seconds) for key, seconds in rows.items()),
        peak_bytes,
    )


def _notes(trace: Trace, num_steps: int, found: Sequence[str]) -> tuple[str, ...]:
    """What a reader must know: where the trace is from, and how much no pattern knew."""
    devices = trace.document.get("deviceProperties")
    listed = devices if isinstance(devices, list) else []
    names = Counter(str(one["name"]) for one in listed if isinstance(one, dict) and one.get("name"))
    notes = [
        f"steps in the trace: {num_steps}"
        if trace.steps
        else "the trace has no steps: all of it is taken as one"
    ]
    if names:
        notes.append("devices: " + ", ".join(f"{count} x {name}" for name, count in names.items()))
    job = trace.document.get("distributedInfo")
    if isinstance(job, dict) and "world_size" in job:
        notes.append(f"rank {job.get('rank')} of {job['world_size']}; times are of this rank")
    if not trace.device:
        notes.append("the trace has no kernels: times are of the host's operators")
    other = sum(kind == ELEMENTWISE for kind in found)
    notes.append(f"{other} of {len(found)} events are taken as elementwise because no pattern knows them")
    return tuple(notes)
