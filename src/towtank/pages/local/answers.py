"""Answers of the local page as mappings: figures of a step, plans of a search."""

from typing import Any
from urllib.parse import urlencode

from towtank.autotune.search.report import Entry, SearchReport
from towtank.pages.local.wish import Wish
from towtank.pages.plan_rows import plan_rows
from towtank.pages.step_report import GIB, summary_rows
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction
from towtank.validation.intervals import attach_interval


def settings_text(plan: Plan, *, without: tuple[str, ...] = ()) -> str:
    """A plan as settings that `--plan` fields of the page and `--set` read: what differs from the defaults."""
    return ",".join(f"{name}={value}" for name, value in plan_rows(plan) if name not in without)


def report_address(wish: Wish, plan: Plan) -> str:
    """Address of the report of a plan, with everything in it that the report needs."""
    names = {"model": wish.model, "machine": wish.machine, "stack": wish.stack}
    return "/report?" + urlencode(names | {"plan": settings_text(plan)})


def prediction_answer(wish: Wish, prediction: Prediction) -> dict[str, Any]:
    """The figures of a step, and where its report is."""
    rows = summary_rows(prediction, attach_interval(prediction))
    return {
        "title": f"{prediction.model.name} on {prediction.plan.num_devices:,} devices of {prediction.machine.name}",
        "columns": ["what", "figure"],
        "rows": [list(row) for row in rows],
        "step_time_s": prediction.step_time_s,
        "fits": prediction.fits,
        "report": report_address(wish, prediction.plan),
    }


def search_answer(wish: Wish, report: SearchReport) -> dict[str, Any]:
    """The best plans of a search, each with the address of its report."""
    result, counts = report.result, report.result.counts
    notes = [
        f"{counts.legal:,} legal plans: {counts.do_not_fit:,} do not fit, {counts.pruned:,} pruned by bound, "
        f"{counts.simulated:,} simulated, {counts.open:,} not looked at, in {result.elapsed_s:.1f} s."
    ]
    if not result.plans:
        least = f"{(result.closest_peak_bytes or 0) / GIB:.1f} of {result.memory_limit_bytes / GIB:.1f} GiB a device"
        notes.append(
            f"No plan fits; the one that lacks least needs {least}."
            if result.closest
            else "No plan is legal."
        )
    elif result.proven:
        notes.append("The first plan is proven best within the model.")
    else:
        notes.append(
            f"Stopped before the proof: the first plan is at most {result.gap * 100:.1f} % behind the best."
        )
    return {
        "title": f"Best plans of {result.task.model.name} on {result.task.devices:,} devices",
        "notes": notes,
        "columns": ["rank", "step, s", "behind", "tokens/s", "MFU", "GiB a device", "plan"],
        "rows": [_row(entry) for entry in report.entries],
        "plans": [settings_text(entry.ranked.plan) for entry in report.entries],
        "reports": [report_address(wish, entry.ranked.plan) for entry in report.entries],
        "proven": result.proven,
    }


def _row(entry: Entry) -> list[str]:
    ranked = entry.ranked
    return [
        str(ranked.rank),
        f"{ranked.step_time_s:.4g}",
        f"{entry.behind * 100:.1f} %",
        f"{entry.tokens_per_s:,.0f}",
        f"{entry.mfu * 100:.1f} %",
        f"{ranked.peak_memory_bytes / GIB:.1f}",
        settings_text(ranked.plan, without=("global_batch", "sequence")).replace(",", ", "),
    ]
