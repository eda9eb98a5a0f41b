"""An explanation of a step as text and as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from towtank.autotune.explanation.actions import actions, next_plans, nothing_next
from towtank.autotune.explanation.sensitivities import Sensitivity
from towtank.autotune.reasons.survey import JudgedNeighbour, Survey
from towtank.autotune.reasons.words import path_words
from towtank.cli.text import gibibytes, paragraph, percent, seconds, table
from towtank.simulator.critical_path import PathPart, by_resource
from towtank.simulator.plan_file import plan_to_mapping
from towtank.simulator.predict import Prediction

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that was found out about one step."""

    prediction: Prediction
    path: tuple[PathPart, ...]
    sensitivities: tuple[Sensitivity, ...]
    survey: Survey
    what_if: tuple[str, ...]
    changed: Prediction | None
    """The same plan on the changed machine; None: nothing was changed."""
    top: int


def explanation_text(found: Explanation) -> str:
    """The step, its critical path, the sensitivities, what to do next and the what-if."""
    prediction = found.prediction
    fits = "fits" if prediction.fits else "does not fit"
    parts = [
        f"{prediction.model.name} on {prediction.plan.num_devices:,} devices of {prediction.machine.name} under "
        f"{prediction.stack.name}: {seconds(prediction.step_time_s)} a step, {fits} "
        f"({gibibytes(prediction.peak_memory_bytes)} of {gibibytes(prediction.memory_capacity_bytes)})",
        _path(found),
        _sensitivities(found),
        _actions(found),
    ]
    if found.changed is not None:
        parts.append(_what_if(found))
    return "\n\n".join(parts)


def _path(found: Explanation) -> str:
    total = found.prediction.step_time_s
    rows = [
        (
            path_words(part, found.prediction.plan),
            part.resource,
            seconds(part.seconds),
            percent(part.seconds / total),
        )
        for part in found.path[: found.top]
    ]
    rest = found.path[found.top :]
    if rest:
        spent = sum(part.seconds for part in rest)
        rows.append((f"{len(rest)} more", "", seconds(spent), percent(spent / total)))
    name, spent = by_resource(found.path)[0]
    heading = f"Limited by {name}: {percent(spent / total)} of the critical path, which is"
    return f"{heading}\n{table(rows)}"


def _sensitivities(found: Explanation) -> str:
    rows = [
        (
            one.knob.name,
            "unknown" if one.elasticity is None else f"{one.elasticity:+.3f} %",
            one.knob.description,
        )
        for one in found.sensitivities
    ]
    return f"Step time for 1 % more of\n{table(rows)}"


def _actions(found: Explanation) -> str:
    lines = actions(found.prediction, found.survey)
    if not lines:
        return f"Next: {nothing_next(found.prediction, found.survey)}; `towtank tune` searches all plans"
    return "Next\n" + "\n".join(paragraph(f"- {line}") for line in lines)


def _what_if(found: Explanation) -> str:
    assert found.changed is not None
    own, other = found.prediction, found.changed
    ratio = other.step_time_s / own.step_time_s - 1
    fits = "fits" if other.fits else "does not fit"
    return paragraph(
        f"With {', '.join(found.what_if)}: {seconds(other.step_time_s)} a step ({ratio * 100:+.2f} %), {fits} "
        f"({gibibytes(other.peak_memory_bytes)} of {gibibytes(other.memory_capacity_bytes)})"
    )


def explanation_to_mapping(found: Explanation) -> dict[str, Any]:
    """An explanation as a JSON document, in SI units."""
    prediction = found.prediction
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "model": prediction.model.name,
        "machine": prediction.machine.name,
        "stack": prediction.stack.name,
        "step_time_s": prediction.step_time_s,
        "fits": prediction.fits,
        "limited_by": by_resource(found.path)[0][0],
        "critical_path": [asdict(part) for part in found.path],
        "sensitivities": {one.knob.name: one.elasticity for one in found.sensitivities},
        "actions": actions(found.prediction, found.survey),
        "next_plans": [_next_to_mapping(each) for each in next_plans(found.prediction, found.survey)],
    }
    if found.changed is not None:
        document["what_if"] = {
            "settings": list(found.what_if),
            "step_time_s": found.changed.step_time_s,
            "peak_memory_bytes": found.changed.peak_memory_bytes,
            "memory_capacity_bytes": found.changed.memory_capacity_bytes,
            "fits": found.changed.fits,
        }
    return document


def _next_to_mapping(each: JudgedNeighbour) -> dict[str, Any]:
    return {
        "change": each.change,
        "step_time_s": each.prediction.step_time_s,
        "peak_memory_bytes": each.prediction.peak_memory_bytes,
        "plan": plan_to_mapping(each.prediction.plan),
    }
