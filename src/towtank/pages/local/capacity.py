"""The capacity plan that a form asks for: its request, checked, and its answer as a table and a page."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from towtank.autotune.capacity.choose import Limits, choose, faults_of
from towtank.autotune.capacity.request import parse_count
from towtank.autotune.capacity.study import (
    CapacityPlan,
    NoPlan,
    Request,
    candidate_devices,
    plan_capacity,
)
from towtank.hardware_profiles.errors import UnitError
from towtank.hardware_profiles.records import Machine
from towtank.hardware_profiles.units import parse_quantity
from towtank.pages.capacity_report import CapacityReport, capacity_page, plan_words, spread
from towtank.pages.html import html_of
from towtank.pages.local.wish import Wish, WrongForm, task_of

SEARCH_S = 10.0
"""For the best plan of each number of devices."""


def request_of(wish: Wish, folder: Path) -> tuple[Request, list[tuple[Machine, int]]]:
    """What is asked, and the numbers of devices to look at: the one of the form, else around the deadline's.

    Raises:
        WrongForm: everything that is wrong.
    """
    faults: list[str] = []
    tokens = parse_count(wish.tokens)
    if tokens is None:
        faults.append("tokens must be a number above 0 such as 300G or 15.6T")
    deadline = _deadline_s(wish.deadline, faults)
    try:
        # models, machines and batches are those of a search, of any number of devices
        task = task_of(wish if wish.devices else replace(wish, devices=1), folder)
    except WrongForm as error:
        raise WrongForm([*faults, *error.faults]) from error
    if faults or tokens is None:
        raise WrongForm(faults)
    request = Request(
        task.model, tokens, task.global_batch, task.stack, task.sequence, deadline_s=deadline,
        search_budget_s=SEARCH_S, memory_margin=task.memory_margin,
    )  # fmt: skip
    counts = (wish.devices,) if wish.devices else candidate_devices(request, task.machine)
    return request, [(task.machine, count) for count in counts]


def _deadline_s(text: str, faults: list[str]) -> float | None:
    if not text:
        return None
    try:
        seconds = parse_quantity(text, "seconds")
    except UnitError as error:
        faults.append(f"deadline must be a time such as 90d ({error})")
        return None
    if seconds <= 0:
        faults.append(f"deadline {text} must be above 0")
    return seconds


def capacity_answer(
    wish: Wish, folder: Path, progress: Callable[[str, int, int], None]
) -> tuple[dict[str, Any], str]:
    """The candidates as a table, and their report as a page that takes plotly from the server.

    Raises:
        WrongForm: everything that is wrong.
    """
    request, places = request_of(wish, folder)
    found, limits = plan_capacity(request, places, progress=progress), Limits(request.deadline_s)
    plans = [one for one in found if isinstance(one, CapacityPlan)]
    chosen = choose(plans, limits)
    page = capacity_page(CapacityReport(request, found, limits, (), (_command(wish),)))
    answer = {
        "title": page.title,
        "notes": [
            "No plan keeps the deadline." if chosen is None else f"Chosen: {chosen.devices:,} devices."
        ],
        "columns": ["devices", "days", "chance", "node-hours", "plan"],
        "rows": [_row(one, limits, chosen) for one in found],
    }
    return answer, html_of(page, plotly="/scripts/plotly.js")


def _row(one: CapacityPlan | NoPlan, limits: Limits, chosen: CapacityPlan | None) -> list[str]:
    if isinstance(one, NoPlan):
        return [f"{one.devices:,}", "", "", "", one.why_not]
    chance = "" if one.chance is None else f"{one.chance * 100:.0f} %"
    mark = " (chosen)" if one is chosen else ""
    broken = "".join(f"; {fault}" for fault in faults_of(one, limits))
    return [
        f"{one.devices:,}{mark}", spread(one.days), chance, spread(one.billed("node_hours")),
        plan_words(one.plan) + broken,
    ]  # fmt: skip


def _command(wish: Wish) -> str:
    """The line that plans the same in a terminal."""
    options = (
        ("--model", wish.model), ("--tokens", wish.tokens), ("--machines", wish.machine), ("--stack", wish.stack),
        ("--devices", wish.devices), ("--global-batch", wish.global_batch), ("--sequence", wish.sequence),
        ("--deadline", wish.deadline), ("--search-budget", f"{SEARCH_S:g}s"),
    )  # fmt: skip
    return " ".join(
        ["towtank capacity", *(f"{name} {quote(str(value))}" for name, value in options if value)]
    )
