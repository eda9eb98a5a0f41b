"""Chrome trace of a predicted step: what every stream of every stage does when, for Perfetto.

A process is a pipeline stage. Its first track, `passes`, holds the passes of whole micro-batches and what is
around them; the tracks below hold operations, one track a stream, and the sends and collectives between stages.
Events go to the file one by one, because the trace of a large step does not fit into memory.

Format: "Trace Event Format", Google, section JSON Object Format (events M, X and C; times in microseconds).
"""

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_graph import STREAMS
from towtank.simulator.block_time import BlockTime
from towtank.simulator.operation_times import block_instances
from towtank.simulator.operations import Block, Elementwise, Message, Operation
from towtank.simulator.predict import Prediction
from towtank.simulator.schedules.roles import Role, StreamKind
from towtank.simulator.step import StepTime

SLICE_LIMIT: Final = 400_000
"""Operations in the trace beyond which only some passes are shown operation by operation: what a browser bears."""

PASSES: Final = "passes"
_TRACKS: Final = (PASSES, *(str(stream) for stream in STREAMS), "send-forward", "send-backward", "data")
_TRACK_OF_KIND: Final = {
    StreamKind.COMPUTE: _TRACKS.index(PASSES),
    StreamKind.SEND_FORWARD: _TRACKS.index("send-forward"),
    StreamKind.SEND_BACKWARD: _TRACKS.index("send-backward"),
    StreamKind.DATA: _TRACKS.index("data"),
}
_FIRST_STREAM: Final = 1
"""Track of the first stream of a block."""

Nanoseconds = NDArray[np.int64]


def write_trace(prediction: Prediction, path: Path, limit: int = SLICE_LIMIT) -> None:
    """Write the step of `prediction` to `path`, compressed if the name ends in .gz.

    With more than `limit` operations, only the first and the last micro-batch of each chunk are shown operation
    by operation and the others as passes; `otherData` says so. Raises OSError if the file cannot be written.
    """
    trace = _Trace(prediction, limit)
    with _writer(path) as file:
        file.write(f'{{"displayTimeUnit":"ms","otherData":{json.dumps(trace.about())},"traceEvents":[\n')
        separator = ""
        for event in trace.events():
            file.write(separator)
            file.write(event)
            separator = ",\n"
        file.write("\n]}\n")


@contextmanager
def _writer(path: Path) -> Iterator[TextIO]:
    if path.suffix != ".gz":
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    # no name and no time inside, so that equal predictions give equal files
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=4, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as file,
    ):
        yield file


@dataclass(frozen=True, slots=True, eq=False)
class _Slices:
    """Operations of one block: their tracks, times from the start of the pass, and the rest of their events."""

    track: NDArray[np.int64]
    start_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    text: list[str]
    """JSON of name, category and arguments, up to where the arguments of the pass follow."""


class _Trace:
    """The events of one prediction."""

    def __init__(self, prediction: Prediction, limit: int) -> None:
        self.prediction = prediction
        self.step: StepTime = prediction.step
        self.tasks = prediction.step.program.pipeline
        self.kind = self.tasks.structure.stream // self.tasks.num_stages
        self.slices: dict[tuple[int, int, int], _Slices] = {}
        self.start = _nanoseconds(self.step.timeline.start_s)
        self.finish = _nanoseconds(self.step.timeline.finish_s)
        self.detailed = self._detailed(limit)

    def about(self) -> dict[str, Any]:
        """What the trace shows, for `otherData`."""
        whole = bool(self.detailed[self._passes].all())
        return {
            "model": self.prediction.model.name,
            "machine": self.prediction.machine.name,
            "stack": self.prediction.stack.name,
            "devices": self.prediction.plan.num_devices,
            "step_time_s": self.prediction.step_time_s,
            "origin": "predicted",
            "operations": "every micro-batch"
            if whole
            else "first and last micro-batch of each chunk; others as passes",
        }

    @cached_property
    def _passes(self) -> NDArray[np.bool_]:
        passes: NDArray[np.bool_] = self.tasks.role <= np.int8(Role.BACKWARD)
        return passes

    def _detailed(self, limit: int) -> NDArray[np.bool_]:
        """Passes that are shown operation by operation."""
        tasks = self.tasks
        shape = (len((Role.FORWARD, Role.BACKWARD)), tasks.num_stages, tasks.num_chunks)
        operations = sum(len(self._slices_of(*place).text) for place in np.ndindex(shape))
        if operations * tasks.num_micro_batches <= limit:
            return self._passes
        ends = (tasks.micro_batch == 0) | (tasks.micro_batch == tasks.num_micro_batches - 1)
        chosen: NDArray[np.bool_] = self._passes & ends
        return chosen

    def _slices_of(self, role: int, stage: int, chunk: int) -> _Slices:
        key = (role, stage, chunk)
        if key not in self.slices:
            blocks, times = (
                (self.step.program.forward, self.step.forward)
                if role == Role.FORWARD
                else (self.step.program.backward, self.step.backward)
            )
            self.slices[key] = _slices(blocks[stage][chunk], times[stage][chunk])
        return self.slices[key]

    def events(self) -> Iterator[str]:
        """Every event as JSON: names of tracks, then stage by stage its tasks, operations and memory."""
        for stage in range(self.tasks.num_stages):
            tasks = np.flatnonzero(self.tasks.stage == stage)
            yield from self._names(stage, tasks)
            for task in tasks.tolist():
                yield self._task_event(stage, task)
            chosen = tasks[self.detailed[tasks]]
            for (role, chunk, micro_batch), pieces in self._grouped(chosen).items():
                yield from self._operation_events(stage, role, chunk, micro_batch, pieces)
            yield from self._memory_events(stage, tasks)

    def _names(self, stage: int, tasks: NDArray[np.intp]) -> Iterator[str]:
        yield _metadata("process_name", stage, 0, {"name": f"stage {stage}"})
        yield _metadata("process_sort_index", stage, 0, {"sort_index": stage})
        used = {_TRACK_OF_KIND[StreamKind(kind)] for kind in np.unique(self.kind[tasks]).tolist()}
        for role, chunk in {
            (int(self.tasks.role[t]), int(self.tasks.chunk[t])) for t in tasks[self.detailed[tasks]]
        }:
            used |= set(self._slices_of(role, stage, chunk).track.tolist())
        for track in sorted(used):
            yield _metadata("thread_name", stage, track, {"name": _TRACKS[track]})
            yield _metadata("thread_sort_index", stage, track, {"sort_index": track})

    def _task_event(self, stage: int, task: int) -> str:
        tasks = self.tasks
        role = Role(int(tasks.role[task]))
        name = role.name.lower().replace("_", "-")
        arguments: dict[str, Any] = {"phase": name}
        for label, values in (
            ("chunk", tasks.chunk),
            ("micro-batch", tasks.micro_batch),
            ("layer", tasks.layer),
        ):
            if values[task] >= 0:
                arguments[label] = int(values[task])
        if role in (Role.SEND_FORWARD, Role.SEND_BACKWARD):
            arguments["bytes"] = self.step.program.send.bytes
        title = f"{name} {tasks.micro_batch[task]}" if tasks.micro_batch[task] >= 0 else name
        text = f'"name":{json.dumps(title)},"cat":"pipeline","args":{json.dumps(arguments)}'
        track = _TRACK_OF_KIND[StreamKind(int(self.kind[task]))]
        return _slice(stage, track, int(self.start[task]), int(self.finish[task]), text)

    def _grouped(self, chosen: NDArray[np.intp]) -> dict[tuple[int, int, int], list[int]]:
        """Tasks of each pass in order of time: one, or its layers if it is unrolled."""
        groups: dict[tuple[int, int, int], list[int]] = {}
        for task in chosen.tolist():
            key = (int(self.tasks.role[task]), int(self.tasks.chunk[task]), int(self.tasks.micro_batch[task]))
            groups.setdefault(key, []).append(task)
        return groups

    def _operation_events(
        self, stage: int, role: int, chunk: int, micro_batch: int, pieces: list[int]
    ) -> Iterator[str]:
        """Operations of a pass. Its pieces share the time of the block equally; an operation that reaches over
        the end of a piece is cut there, as the pause before the next piece cuts it."""
        slices = self._slices_of(role, stage, chunk)
        makespan = float(slices.finish_s.max(initial=0.0))
        if makespan == 0:
            return
        share = makespan / len(pieces)
        for number, task in enumerate(pieces):
            begin, end = number * share, (number + 1) * share if number < len(pieces) - 1 else makespan
            inside = np.flatnonzero((slices.start_s < end) & (slices.finish_s > begin))
            scale = float(self.finish[task] - self.start[task]) / (end - begin)
            start = self.start[task] + np.rint((np.maximum(slices.start_s[inside], begin) - begin) * scale)
            finish = self.start[task] + np.rint((np.minimum(slices.finish_s[inside], end) - begin) * scale)
            tracks = slices.track[inside].tolist()
            rows = zip(
                inside.tolist(),
                tracks,
                start.astype(np.int64).tolist(),
                finish.astype(np.int64).tolist(),
                strict=True,
            )
            for index, track, at, until in rows:
                if until > at:
                    yield _slice(
                        stage, track, at, until, f'{slices.text[index]},"micro-batch":{micro_batch}}}'
                    )

    def _memory_events(self, stage: int, tasks: NDArray[np.intp]) -> Iterator[str]:
        """Bytes of activations: a forward pass takes its share at its start, a backward pass frees it at its end."""
        memory = self.prediction.memory[stage]
        each = memory.parts.get("activations", 0.0) / max(1, memory.alive_micro_batches)
        times: list[tuple[int, int]] = []
        for (kind, _, _), pieces in self._grouped(tasks[self._passes[tasks]]).items():
            forward = kind == Role.FORWARD
            times.append((int(self.start[pieces[0]]), 1) if forward else (int(self.finish[pieces[-1]]), -1))
        held = 0
        for at, change in sorted(times):
            held += change
            yield (
                f'{{"ph":"C","pid":{stage},"tid":0,"ts":{_microseconds(at)},"name":"activations",'
                f'"args":{{"bytes":{held * each:.0f}}}}}'
            )


def _slices(block: Block, time: BlockTime) -> _Slices:
    """Operations of a block that take time, in the order of their tracks' clocks."""
    timeline = time.timeline
    stream = time.graph.structure.stream
    texts, chosen = [], []
    # the timeline may come from another block of the same signature, with other layer numbers
    for index, (prefix, operation) in enumerate(block_instances(block)):
        if timeline.finish_s[index] > timeline.start_s[index]:
            chosen.append(index)
            texts.append(_operation_text(f"{prefix}.{operation.name}", operation))
    kept = np.array(chosen, np.int64)
    return _Slices(
        stream[kept].astype(np.int64) + _FIRST_STREAM, timeline.start_s[kept], timeline.finish_s[kept], texts
    )


def _operation_text(name: str, operation: Operation) -> str:
    """JSON of an operation, up to where the arguments of the pass follow."""
    arguments: dict[str, Any] = {"kind": operation.kind, "phase": str(operation.phase)}
    if operation.flop:
        arguments["flop"] = operation.flop
    if isinstance(operation.work, Message | Elementwise):
        arguments["bytes"] = operation.work.bytes
    text = json.dumps(arguments).removesuffix("}")
    return f'"name":{json.dumps(name)},"cat":{json.dumps(operation.kind)},"args":{text}'


def _nanoseconds(seconds: NDArray[np.float64]) -> Nanoseconds:
    """Whole nanoseconds: rounding keeps the order, so slices that touch do not come to overlap."""
    rounded: Nanoseconds = np.rint(seconds * 1e9).astype(np.int64)
    return rounded


def _microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"


def _slice(stage: int, track: int, start_ns: int, finish_ns: int, text: str) -> str:
    duration = _microseconds(finish_ns - start_ns)
    return f'{{"ph":"X","pid":{stage},"tid":{track},"ts":{_microseconds(start_ns)},"dur":{duration},{text}}}'


def _metadata(name: str, stage: int, track: int, arguments: dict[str, Any]) -> str:
    return json.dumps({"ph": "M", "name": name, "pid": stage, "tid": track, "args": arguments})
