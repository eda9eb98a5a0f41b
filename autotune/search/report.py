"""What is said about the result of a search besides its step times: throughput, differences, reasons, intervals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towtank.autotune.reasons import Reason, reason_between, reason_to_mapping
from towtank.autotune.reasons.explain import missing_memory
from towtank.autotune.reasons.near_misses import NearMiss, near_misses
from towtank.autotune.reasons.neighbours import change
from towtank.autotune.search.records import Counts, RankedPlan, SearchResult
from towtank.simulator.memory import stage_memories
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_to_mapping
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.program import lower

if TYPE_CHECKING:
    from towtank.validation.intervals import Interval

SCHEMA = 1


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One plan of the result."""

    ranked: RankedPlan
    behind: float
    """Step time over that of the winner, less 1."""
    tokens_per_s: float
    """Of the whole job."""
    mfu: float
    change: str
    """What differs from the winner; empty for the winner."""
    reason: Reason | None
    """Why it lost against the winner; None for the winner."""


@dataclass(frozen=True, slots=True, eq=False)
class SearchReport:
    """A result with everything that is said about it."""

    result: SearchResult
    entries: tuple[Entry, ...]
    winner: Prediction | None
    """Prediction of the winner; None where no plan fits."""
    interval: "Interval | None"
    """Of the winner's step time, from published runs."""
    obstacle: Reason | None
    """Where no plan fits: what the one that lacks least would need."""
    near_misses: tuple[NearMiss, ...] = ()
    """Plans one step away from the winner that are illegal, or faster and too large."""

    @property
    def order_by_reference(self) -> tuple[int, ...]:
        """Ranks of the finalists in the order of the reference engine; of equal ones the better rank first."""
        found = [each for each in self.result.plans if each.reference_s is not None]
        return tuple(each.rank for each in sorted(found, key=lambda each: each.reference_s or 0.0))


def search_report(result: SearchResult) -> SearchReport:
    """Predict the plans of a result once more, in full, and say how they differ.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a prediction needs.
    """
    if not result.plans:
        return SearchReport(result, (), None, None, _obstacle(result))
    from towtank.validation.intervals import attach_interval

    first = result.plans[0]
    winner = _predicted(result, first.plan)
    entries = tuple(_entry(result, each, winner) for each in result.plans)
    return SearchReport(
        result, entries, winner, attach_interval(winner), None, near_misses(result.task, winner)
    )


def _predicted(result: SearchResult, plan: Plan) -> Prediction:
    task = result.task
    return predict(task.model, task.machine, plan, stack=task.stack, profile_dirs=task.profile_dirs)


def _entry(result: SearchResult, ranked: RankedPlan, winner: Prediction) -> Entry:
    first = ranked.rank == 1
    found = winner if first else _predicted(result, ranked.plan)
    return Entry(
        ranked=ranked,
        behind=ranked.step_time_s / winner.step_time_s - 1,
        tokens_per_s=found.tokens_per_s,
        mfu=found.mfu,
        change="" if first else change(winner.plan, ranked.plan, result.task.stack),
        reason=None if first else reason_between(found, winner),
    )


def _obstacle(result: SearchResult) -> Reason | None:
    """What the plan that lacks least lacks."""
    if result.closest is None:
        return None
    program = lower(result.task.model, result.closest, result.task.stack)
    fullest = max(stage_memories(program), key=lambda stage: stage.peak_bytes)
    return missing_memory(fullest, result.memory_limit_bytes, result.task.memory_margin)


def report_to_mapping(report: SearchReport, version: str) -> dict[str, Any]:
    """The JSON document of `towtank tune`, in SI units (`result.schema.json`)."""
    result, task = report.result, report.result.task
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "towtank": version,
        "model": task.model.name,
        "machine": task.machine.name,
        "stack": task.stack.name,
        "devices": task.devices,
        "global_batch": task.global_batch,
        "sequence": task.sequence or task.model.sequence,
        "counts": _counts(result.counts),
        "proven": result.proven,
        "gap": result.gap if result.plans else None,
        "stopped": result.stopped,
        "elapsed_s": result.elapsed_s,
        **({} if result.listed else {"listed": False}),
        "memory_capacity_bytes": task.machine.device.memory_capacity_bytes,
        "memory_margin": task.memory_margin,
        "plans": [_entry_to_mapping(each) for each in report.entries],
    }
    if report.interval is not None:
        from towtank.validation.intervals import interval_to_mapping

        document["winner"] = interval_to_mapping(report.interval)
        document["near_misses"] = [_near_miss_to_mapping(each) for each in report.near_misses]
    if report.obstacle is not None and result.closest is not None:
        document["closest"] = {
            "plan": plan_to_mapping(result.closest),
            "peak_memory_bytes": result.closest_peak_bytes,
            "reason": reason_to_mapping(report.obstacle),
        }
    return document


def _counts(counts: Counts) -> dict[str, int]:
    found = {
        "legal": counts.legal,
        "do_not_fit": counts.do_not_fit,
        "pruned": counts.pruned,
        "simulated": counts.simulated,
    }
    return found | ({"open": counts.open} if counts.open else {})


def _near_miss_to_mapping(found: NearMiss) -> dict[str, Any]:
    document: dict[str, Any] = {
        "plan": plan_to_mapping(found.plan),
        "change": found.change,
        "reason": reason_to_mapping(found.reason),
    }
    return document | ({} if found.step_time_s is None else {"step_time_s": found.step_time_s})


def _entry_to_mapping(entry: Entry) -> dict[str, Any]:
    ranked = entry.ranked
    document: dict[str, Any] = {
        "rank": ranked.rank,
        "plan": plan_to_mapping(ranked.plan),
        "step_time_s": ranked.step_time_s,
        "peak_memory_bytes": ranked.peak_memory_bytes,
        "bound_s": ranked.bound_s,
        "proven": ranked.proven,
        "behind": entry.behind,
        "tokens_per_s": entry.tokens_per_s,
        "mfu": entry.mfu,
    }
    if ranked.reference_s is not None:
        document["reference_s"] = ranked.reference_s
    if entry.reason is not None:
        document["change"] = entry.change
        document["reason"] = reason_to_mapping(entry.reason)
    return document
