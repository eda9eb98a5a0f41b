"""What came out of a study or of an exact Pareto front, as text and as JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from towtank.cli.memory_margin import does_not_fit_words
from towtank.cli.text import count, emit, emit_json, gibibytes, paragraph, plural, seconds, significant, table

if TYPE_CHECKING:
    from towtank.autotune.study.exact_front import Front
    from towtank.autotune.study.plan_objective import PlanObjective
    from towtank.autotune.study.records import Finished, Measure, StudyResult
    from towtank.autotune.study.session import OpenStudy
    from towtank.simulator.plan import Plan

SCHEMA = 1
_MOST_ROWS = 10


def plan_words(plan: "Plan") -> str:
    """The fields of a plan that differ from the defaults, in one line."""
    from towtank.simulator.plan_file import plan_to_mapping

    words = []
    for key, value in plan_to_mapping(plan).items():
        if key in ("schema", "global_batch", "sequence"):
            continue
        if isinstance(value, dict):
            words += [f"{key}.{name}={_word(each)}" for name, each in value.items()]
        else:
            words.append(f"{key}={_word(value)}")
    return " ".join(words)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)


def figure(measure: "Measure", value: float) -> str:
    """One figure with its unit."""
    if measure.unit == "s":
        return seconds(value)
    if measure.unit == "bytes":
        return gibibytes(value)
    if measure.unit == "devices":
        return count(value)
    return f"{significant(value)} {measure.unit}"


def _plan_table(measures: Sequence["Measure"], rows: Sequence[tuple["Plan", Sequence[float]]]) -> str:
    counted = any(measure.name == "devices" for measure in measures)
    heads = ["rank", *(measure.name for measure in measures), *([] if counted else ["devices"]), "plan"]
    lines = [
        [
            str(rank),
            *(figure(m, v) for m, v in zip(measures, values, strict=True)),
            *([] if counted else [count(plan.num_devices)]),
            plan_words(plan),
        ]
        for rank, (plan, values) in enumerate(rows[:_MOST_ROWS], start=1)
    ]
    return table(lines, heads, right=range(len(heads) - 1))


def print_study(
    result: "StudyResult", opened: "OpenStudy", objective: "PlanObjective", json: bool, *, worker: bool
) -> "Plan | None":
    """Print what a study has found; the best plan, or None where none fits.

    A worker is told how to get at the plan file, anybody else how to go on.
    """
    from towtank.autotune.study.plan_objective import plan_of_name

    rows = [(plan_of_name(trial.name), trial.outcome.values) for trial in result.best]
    if json:
        emit_json(_study_document(result, opened, objective))
    else:
        emit(_study_text(result, opened, rows, objective.memory_margin, worker=worker))
    return rows[0][0] if rows else None


def _study_text(
    result: "StudyResult",
    opened: "OpenStudy",
    rows: Sequence[tuple["Plan", Sequence[float]]],
    margin: float,
    *,
    worker: bool,
) -> str:
    from towtank.autotune.study.storage import MEMORY, shown

    counts = result.counts
    said = [
        f"{count(counts.finished)} plans tried",
        f"{count(counts.infeasible)} {does_not_fit_words(margin)}",
        f"sampler {opened.settings.sampler}, seed {opened.settings.seed}",
    ]
    said += [f"{counts.failed} failed"] if counts.failed else []
    said += [f"{counts.retried} begun again after their worker was lost"] if counts.retried else []
    said += ["the sampler finds no other plan"] if result.exhausted else []
    lines = [f"study {result.name}: {', '.join(said)}"]
    if rows:
        several = len(result.measures) > 1
        lines += ["", f"Pareto front of what was tried, {len(rows)} plans" if several else "Best plans"]
        lines.append(_plan_table(result.measures, rows))
    else:
        lines.append("no plan that was tried fits; use more devices, or more --trials")
    if opened.place != MEMORY:
        lines += [
            "",
            paragraph(f"kept in {shown(opened.place)}; the same command with more --trials goes on", 0),
        ]
    return "\n".join(lines)


def _study_document(result: "StudyResult", opened: "OpenStudy", objective: "PlanObjective") -> dict[str, Any]:
    from towtank.autotune.study.storage import shown

    counts = result.counts
    return {
        "schema": SCHEMA,
        "method": "optuna",
        "study": result.name,
        "storage": shown(opened.place),
        "sampler": opened.settings.sampler,
        "seed": opened.settings.seed,
        "memory_margin": objective.memory_margin,
        "measures": _measures(result.measures),
        "counts": {
            "simulated": counts.complete,
            "do_not_fit": counts.infeasible,
            "failed": counts.failed,
            "running": counts.running,
            "waiting": counts.waiting,
            "retried": counts.retried,
        },
        "exhausted": result.exhausted,
        "proven": False,
        "plans": [
            _trial_document(rank, trial, result.measures, objective)
            for rank, trial in enumerate(
                result.best[: None if len(result.measures) > 1 else _MOST_ROWS], start=1
            )
        ],
    }


def _measures(measures: Sequence["Measure"]) -> list[dict[str, str]]:
    return [{"name": each.name, "direction": each.direction, "unit": each.unit} for each in measures]


def _trial_document(
    rank: int, trial: "Finished", measures: Sequence["Measure"], objective: "PlanObjective"
) -> dict[str, Any]:
    from towtank.autotune.study.plan_objective import plan_of_name
    from towtank.simulator.plan_file import plan_to_mapping

    plan, simulated = plan_of_name(trial.name), objective.simulated(trial.parameters)
    return {
        "rank": rank,
        "trial": trial.number,
        "plan": plan_to_mapping(plan),
        "devices": plan.num_devices,
        "step_time_s": simulated.step_time_s,
        "peak_memory_bytes": simulated.peak_memory_bytes,
        "values": dict(zip((each.name for each in measures), trial.outcome.values, strict=True)),
    }


def print_front(front: "Front", json: bool) -> "Plan | None":
    """Print an exact Pareto front; its first plan, or None where no plan fits."""
    rows = [(found.plan, found.values) for found in front.plans]
    if json:
        emit_json(_front_document(front))
    else:
        emit(_front_text(front, rows))
    return rows[0][0] if rows else None


def _front_text(front: "Front", rows: Sequence[tuple["Plan", Sequence[float]]]) -> str:
    counts = front.counts
    lines = [
        f"{count(counts.legal)} legal plans on {_devices_words(front.devices)}, "
        f"{count(counts.do_not_fit)} {does_not_fit_words(front.memory_margin)}, "
        f"{count(counts.pruned)} pruned by their bounds, {count(counts.simulated)} simulated"
        + (f", {count(counts.open)} open" if counts.open else "")
    ]
    if not rows:
        return "\n".join([*lines, "no plan fits; use more devices or relax a constraint"])
    exact = "exact Pareto front" if front.exact else "Pareto front of the plans simulated, not exact"
    lines += ["", f"{exact}, {len(rows)} plans", _plan_table(front.measures, rows)]
    if len(rows) > _MOST_ROWS:
        lines.append(f"  and {len(rows) - _MOST_ROWS} more; --json has all")
    return "\n".join(lines)


def _devices_words(devices: Sequence[int]) -> str:
    """Numbers of devices in words, such as `32, 64 or 128 devices`."""
    *others, last = [count(number) for number in devices]
    return f"{', '.join(others)} or {last} devices" if others else plural(devices[0], "device")


def _front_document(front: "Front") -> dict[str, Any]:
    from towtank.simulator.plan_file import plan_to_mapping

    counts = front.counts
    return {
        "schema": SCHEMA,
        "method": "exact",
        "memory_margin": front.memory_margin,
        "devices": list(front.devices),
        "measures": _measures(front.measures),
        "counts": {
            "legal": counts.legal,
            "do_not_fit": counts.do_not_fit,
            "pruned": counts.pruned,
            "simulated": counts.simulated,
            "open": counts.open,
        },
        "proven": front.exact,
        "plans": [
            {
                "rank": rank,
                "plan": plan_to_mapping(found.plan),
                "devices": found.plan.num_devices,
                "values": dict(zip((m.name for m in front.measures), found.values, strict=True)),
                "step_time_s": found.step_time_s,
                "peak_memory_bytes": found.peak_memory_bytes,
            }
            for rank, found in enumerate(front.plans, start=1)
        ],
    }
