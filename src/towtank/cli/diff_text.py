"""What `towtank diff` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from towtank.cli.prediction_text import layout
from towtank.cli.text import count, gibibytes, paragraph, percent, plural, seconds, table

if TYPE_CHECKING:
    from towtank.cli.job import Job
    from towtank.executor.measured.difference import Difference, Differences
    from towtank.executor.measured.run_record import RunRecord

_HEADS = ("predicted", "measured", "difference", "")
_SMALLEST = 0.0005
"""Kinds that are a smaller part of both steps are summed up."""
_MIB = 2**20


def diff_text(
    found: "Differences", job: "Job", record: "RunRecord", top: int, others: "Sequence[str]" = ()
) -> str:
    """Two steps beside each other, at most 100 columns wide; `others`: in what the run was another job."""
    from towtank.executor.measured.combine import UNNAMED

    parts = [
        _subjects(job, record),
        _totals(found),
        "Where the step goes (exposed seconds, mean over devices)\n" + _kinds(found),
        _operations(found, top),
    ]
    notes = list(record.notes)
    if others:
        notes.insert(0, f"the run was another job than the predicted one: {'; '.join(others)}")
    unnamed = sum(one.measured_s or 0.0 for one in found.kinds if one.name == UNNAMED)
    if unnamed:
        share = percent(unnamed / (found.step_s.measured_s or 1.0))
        notes.append(f"{share} of the measured step is under no operation (unnamed)")
    if any(found.unmatched):
        notes.append(
            f"operations that only the prediction has: {found.unmatched[0]}; only the run: {found.unmatched[1]}"
        )
    return "\n\n".join([*parts, *(paragraph(f"note: {note}", indent=0) for note in notes)])


def _subjects(job: "Job", record: "RunRecord") -> str:
    plan, machine = job.plan, job.machine
    predicted = (
        f"predicted  {job.model.name} on {plural(plan.num_devices, machine.device.unit)} of {machine.name} under "
        f"{job.stack.name}, {layout(plan)}, {count(plan.global_batch)} sequences"
    )
    run, facts = record.run, record.machine
    words = ["measured  ", record.model or "", f"by {record.source}"]
    if run is not None:
        words.append(f"on {count(run.devices)} devices ({run.device_type}, {run.dtype}), {run.steps} steps")
    if facts is not None:
        words.append(f"on {', '.join(facts.devices) or facts.processor} ({facts.fingerprint})")
    lines = [predicted, " ".join(word for word in words if word)]
    return "\n".join(paragraph(line, indent=0) for line in lines)


def _totals(found: "Differences") -> str:
    predicted, measured = found.peak_memory_bytes
    rows = [("step time", *_cells(found.step_s))]
    memory = _bytes(measured) if measured is not None else "unknown"
    change = f"{100 * (measured / predicted - 1):+.1f} %" if measured is not None else ""
    difference = (
        ""
        if measured is None
        else f"{'+' if measured > predicted else '-'}{_bytes(abs(measured - predicted))}"
    )
    rows.append(("memory at the peak", _bytes(predicted), memory, difference, change))
    return table(rows, ("", *_HEADS), right=(1, 2, 3, 4))


def _bytes(value: float) -> str:
    """MiB below a GiB: small runs on a CPU."""
    return gibibytes(value) if value >= 2**30 else f"{value / _MIB:,.1f} MiB"


def _cells(one: "Difference") -> tuple[str, str, str, str]:
    predicted, measured = (
        "-" if value is None else seconds(value) for value in (one.predicted_s, one.measured_s)
    )
    sign = "+" if one.difference_s > 0 else "-" if one.difference_s < 0 else ""
    relative = f"{100 * one.difference_s / one.predicted_s:+.1f} %" if one.predicted_s else ""
    return predicted, measured, sign + seconds(abs(one.difference_s)), relative


def _kinds(found: "Differences") -> str:
    step = max(found.step_s.predicted_s or 0.0, found.step_s.measured_s or 0.0)
    shown = [one for one in found.kinds if _most(one) >= _SMALLEST * step]
    rows = [(one.name, *_cells(one)) for one in shown]
    return table([*rows, *_rest(found.kinds, shown)], ("", *_HEADS), right=(1, 2, 3, 4))


def _most(one: "Difference") -> float:
    return max(abs(one.predicted_s or 0.0), abs(one.measured_s or 0.0))


def _operations(found: "Differences", top: int) -> str:
    shown = found.operations[:top]
    rows = [(one.name, one.phase, *_cells(one)) for one in shown]
    rest = [(name, "", *cells) for name, *cells in _rest(found.operations, shown)]
    head = "Operations, those that differ most first (layer.*: all layers together)"
    return f"{head}\n" + table([*rows, *rest], ("", "", *_HEADS), right=(2, 3, 4, 5))


def _rest(
    rows: "Sequence[Difference]", shown: "Sequence[Difference]"
) -> list[tuple[str, str, str, str, str]]:
    """What is not shown, and the sum of all."""
    from towtank.executor.measured.difference import Difference, total

    kept = {id(one) for one in shown}
    rest = [one for one in rows if id(one) not in kept]
    found = []
    if rest:
        name = f"{len(rest)} more"
        found.append((name, *_cells(Difference(name, "", "", *total(rest)))))
    found.append(("sum", *_cells(Difference("sum", "", "", *total(rows)))))
    return found
