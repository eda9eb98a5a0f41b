"""The report of a capacity plan."""

from towtank.autotune.capacity.choose import Limits
from towtank.autotune.capacity.request import Uncertainty
from towtank.autotune.capacity.study import NoPlan, Request, plan_run
from towtank.hardware_profiles.load import load_machine
from towtank.pages.capacity_report import CapacityReport, capacity_page
from towtank.pages.html import html_of
from towtank.pages.plain import csv_of, markdown_of
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

MACHINE = load_machine("dgx-h100:nodes=32")


def report(limits: Limits) -> CapacityReport:
    request = Request(
        load_model("llama2-7b"), 1e11, 256, load_stack("megatron-core"), uncertainty=Uncertainty(runs=5),
        deadline_s=limits.deadline_s,
    )  # fmt: skip
    plans = [
        plan_run(request, MACHINE, Plan(data=devices, zero_stage=1, global_batch=256))
        for devices in (32, 64, 128)
    ]
    return CapacityReport(
        request, [*plans, NoPlan(MACHINE, 8, "too small")], limits, ["a note"], ["towtank x"]
    )


def test_sections_plots_and_the_candidate_without_a_plan() -> None:
    page = capacity_page(report(Limits()))
    titles = [section.title for section in page.sections]
    assert titles == [
        "Summary", "All candidates", "Plans of the candidates", "Days against device-hours",
        "Where the time of the run goes", "The chosen plan", "Checkpoints", "How far to trust it", "Assumptions",
        "Unknown",
        "Commands that reproduce this page",
    ]  # fmt: skip
    plots = {section.plot.name: section.plot for section in page.sections if section.plot}
    assert len(plots["capacity-front"].data[0]["x"]) == 3
    # the shares of each run add up to the whole
    for place in range(3):
        assert abs(sum(trace["x"][place] for trace in plots["capacity-parts"].data) - 100) < 1e-9
    text = markdown_of(page)
    assert "too small" in text and "a note" in text and "towtank x" in text
    assert "star" in plots["capacity-front"].data[0]["marker"]["symbol"]
    assert "All candidates" in csv_of(page)
    assert 'id="plot-capacity-front"' in html_of(page, plotly="plotly.js")


def test_without_a_plan_within_the_limits_the_reasons_are_told() -> None:
    page = capacity_page(report(Limits(deadline_s=60.0)))
    assert "No plan keeps the limits." in page.sections[0].paragraphs
    assert len(page.sections[0].items) == 3
    assert "0 % of the runs" in page.sections[0].items[0]
