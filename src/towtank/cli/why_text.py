"""What `towtank why` prints."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from towtank.cli.prediction_text import layout
from towtank.cli.text import count, gibibytes, paragraph, percent, plural, seconds, table

if TYPE_CHECKING:
    from towtank.autotune.reasons import Reason
    from towtank.autotune.reasons.limits import Limit
    from towtank.autotune.reasons.survey import JudgedNeighbour, Survey
    from towtank.autotune.task import TuningTask
    from towtank.cli.job import Job
    from towtank.simulator.predict import Prediction

_WORTH_A_WORD = 0.005
"""Groups below this share of the step are not named."""


@dataclass(frozen=True)
class Assessment:
    """What is known about a plan."""

    job: "Job"
    task: "TuningTask"
    rules: tuple[str, ...]
    """Rules that it breaks."""
    prediction: "Prediction | None"
    """None for an illegal plan."""
    survey: "Survey | None"
    """None where it is compared with one other plan."""
    against: "Prediction | None"
    reason: "Reason | None"
    """Why it loses against that other plan."""


def why_text(found: "Assessment") -> str:
    """The whole answer, at most 100 columns wide."""
    sections = [_headline(found), _state(found)]
    if found.survey is not None:
        sections.append(_neighbours(found.survey, found.prediction, found.task.memory_margin))
    if found.against is not None:
        sections.append(_against(found))
    return "\n\n".join(sections)


def _headline(found: "Assessment") -> str:
    plan, machine = found.job.plan, found.job.machine
    where = f"{found.job.model.name} on {plural(plan.num_devices, machine.device.unit)} of {machine.name}"
    if found.prediction is None:
        return f"{where}: ILLEGAL, {plural(len(found.rules), 'rule')} broken"
    step = f"{where}: {seconds(found.prediction.step_time_s)} a step"
    return step if found.prediction.fits else f"{step}, but it DOES NOT FIT"


def _state(found: "Assessment") -> str:
    rows = [("plan", layout(found.job.plan))]
    if found.prediction is None:
        rows.append(("legal", f"no, under {found.job.stack.name}:"))
        return "\n".join([table(rows), *(paragraph(f"- {rule}", indent=4) for rule in found.rules)])
    rows += [
        ("legal", f"yes, under {found.job.stack.name}"),
        ("memory", _memory(found.prediction, found.task)),
        ("limited by", _limits(found.prediction)),
    ]
    return table(rows)


def _memory(prediction: "Prediction", task: "TuningTask") -> str:
    from towtank.autotune.reasons.explain import missing_memory

    capacity, stage = prediction.memory_capacity_bytes, prediction.peak_stage
    if not prediction.fits:
        return missing_memory(stage, capacity).text
    text = (
        f"fits: {gibibytes(stage.peak_bytes)} of {gibibytes(capacity)} on stage {stage.stage}, the fullest; "
        f"{gibibytes(capacity - stage.peak_bytes)} are free"
    )
    if stage.peak_bytes <= task.memory_limit_bytes():
        return text
    kept = stage.peak_bytes * task.memory_margin
    return (
        f"{text}, less than the {gibibytes(kept)} ({percent(task.memory_margin)}) that tune keeps for the error of "
        "predicted memory (--memory-margin)"
    )


def _limits(prediction: "Prediction") -> str:
    from towtank.autotune.reasons.limits import limits

    named = [limit for limit in limits(prediction) if limit.share >= _WORTH_A_WORD]
    return ", ".join(_limit(limit) for limit in named)


def _limit(limit: "Limit") -> str:
    text = f"{limit.name} {percent(limit.share)}"
    if limit.largest == limit.name:
        return text
    return f"{text} ({limit.largest} {percent(limit.largest_share)})"


def _neighbours(survey: "Survey", prediction: "Prediction | None", margin: float) -> str:
    spare = f" with {percent(margin)} of memory to spare" if margin else ""
    heading = (
        f"Neighbours: {count(survey.neighbours)} plans with one degree moved or one switch flipped; "
        f"{count(survey.legal)} legal, {count(survey.fit)} fit{spare}, {count(survey.simulated)} simulated"
    )
    parts = [paragraph(heading, indent=0), *(_neighbour(each, prediction) for each in survey.best)]
    if not survey.best:
        parts.append(f"  none of them {'fits' if survey.legal else 'is legal'}")
    if survey.out_of_reach is not None:
        parts.append(_out_of_reach(survey.out_of_reach, margin))
    if prediction is not None:
        parts.append("\n" + paragraph(_verdict(survey, prediction), indent=0))
    return "\n".join(parts)


def _neighbour(each: "JudgedNeighbour", prediction: "Prediction | None") -> str:
    from towtank.autotune.reasons import reason_between

    text = f"{seconds(each.prediction.step_time_s)}  {each.change}"
    if prediction is None or not prediction.fits:
        return paragraph(text)
    return paragraph(f"{text}: the plan is {reason_between(prediction, each.prediction).text}")


def _out_of_reach(each: "JudgedNeighbour", margin: float) -> str:
    from towtank.autotune.reasons.explain import missing_memory

    limit = each.prediction.memory_capacity_bytes / (1 + margin)
    lacks = missing_memory(each.prediction.peak_stage, limit, margin).text
    return paragraph(f"with more memory {seconds(each.prediction.step_time_s)}  {each.change}, but {lacks}")


def _verdict(survey: "Survey", prediction: "Prediction") -> str:
    from towtank.autotune.reasons.difference import AS_FAST

    if not prediction.fits:
        return (
            "The neighbours above fit; the plan does not."
            if survey.best
            else "Shard more, or recompute more."
        )
    limit_s = prediction.step_time_s * (1 - AS_FAST)
    faster = [each for each in survey.best if each.prediction.step_time_s < limit_s]
    if not faster:
        return "No neighbour is faster."
    gain = 1 - faster[0].prediction.step_time_s / prediction.step_time_s
    how_many = f"At least {len(faster)}" if len(faster) == len(survey.best) else str(len(faster))
    are = "neighbour is" if len(faster) == 1 else "neighbours are"
    return f"{how_many} {are} faster, the best by {percent(gain)} of the step."


def _against(found: "Assessment") -> str:
    other, reason = found.against, found.reason
    assert other is not None and reason is not None
    lines = [
        f"Against {layout(other.plan)}: {seconds(other.step_time_s)} a step",
        paragraph(f"the plan is {reason.text}" if reason.difference_s else reason.text),
    ]
    if not other.fits:
        lines.append(paragraph("that plan does not fit into memory itself"))
    lines += [paragraph(f"mind: {text}") for text in _unlike(found, other)]
    if reason.difference_s:
        rows = [
            (kind, f"{'+' if value > 0 else '-'}{seconds(abs(value))}")
            for kind, value in reason.difference_s.items()
            if abs(value) >= 1e-6
        ]
        lines.append("\nSeconds a step more (+) or less (-) than that plan\n" + table(rows, right=(1,)))
    return "\n".join(lines)


def _unlike(found: "Assessment", other: "Prediction") -> list[str]:
    """In what the two are not the same job, so that their steps do not compare as they are."""
    job = found.job
    pairs = [
        ("model", job.model.name, other.model.name),
        ("machine", job.machine.name, other.machine.name),
        ("stack", job.stack.name, other.stack.name),
        ("devices", count(job.plan.num_devices), count(other.plan.num_devices)),
        ("sequences of a step", count(job.plan.global_batch), count(other.plan.global_batch)),
    ]
    return [f"{name}: {mine} here, {theirs} there" for name, mine, theirs in pairs if mine != theirs]
