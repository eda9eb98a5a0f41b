"""The report of a step: what is on it, that it is safe, and that it needs nothing else."""

import csv
import io
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from towtank.pages.html import html_of
from towtank.pages.plain import csv_of, markdown_of
from towtank.pages.plots import breakdown_plot, path_plot
from towtank.pages.plots_over_time import memory_plot, timeline_plot
from towtank.pages.records import Page, Plot, Section, Table
from towtank.pages.roofline import roofline_plot
from towtank.pages.step_report import _scaled, page_of, step_report
from towtank.simulator.critical_path import critical_path
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict
from towtank.validation.intervals import attach_interval

SECTIONS = [
    "Summary", "Where the time goes", "What limits the step", "Pipeline", "Memory over the step",
    "Roofline of the operations", "What matters of the machine", "Plans one step away", "Scaling of this plan",
    "How far to trust it", "Assumptions and sources", "Commands that reproduce this page",
]  # fmt: skip
WICKED = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def _plot(page: Page, name: str) -> Plot:
    return next(section.plot for section in page.sections if section.plot and section.plot.name == name)


def _without_library(text: str) -> str:
    return re.sub(r"<script>/\*\*.*?</script>", "", text, count=1, flags=re.DOTALL)


def test_the_sections_are_there_in_order(page: Page) -> None:
    assert [section.title for section in page.sections] == SECTIONS


def test_the_parts_of_the_step_sum_to_it(page: Page, prediction: Prediction) -> None:
    parts = _plot(page, "breakdown").table.rows
    chain = _plot(page, "critical-path").table.rows
    assert sum(float(row[1]) for row in parts) == pytest.approx(prediction.step_time_s)
    assert sum(float(row[2]) for row in chain) == pytest.approx(prediction.step_time_s)


def test_the_timeline_counts_every_pass(page: Page) -> None:
    # 32 sequences / (2 replicas x micro-batch 1) = 16 micro-batches on each of 4 stages
    rows = {row[0]: row[1] for row in _plot(page, "timeline").table.rows}
    assert rows["forward"] == 16 * 4
    # the last backward pass goes layer by layer, 6 a stage, so that its gradients are reduced meanwhile
    assert rows["backward"] == (15 + 6) * 4
    assert rows["optimizer"] == 4


def test_memory_is_stacked_up_to_the_peak(prediction: Prediction) -> None:
    plot = memory_plot(prediction)
    top, capacity = plot.data[-2], plot.data[-1]
    assert max(top["y"]) == pytest.approx(prediction.peak_memory_bytes / 2**30, rel=1e-4)
    assert top["y"][0] < max(top["y"])  # no activation is alive before the first pass
    assert capacity["y"] == [80.0, 80.0]  # A100 with 80 GiB


OTHERS = [
    ("mixtral-8x7b", "frontier:nodes=4", Plan(
        tensor_x=4, sequence_parallel=True, pipeline=2, virtual_stages=4, data=4, expert=4, zero_stage=1,
        global_batch=32,
    )),
    ("llama3-8b", "perlmutter:nodes=4", Plan(tensor_x=2, context=2, data=4, zero_stage=3, global_batch=8)),
    ("llama3-8b", "dgx-h100:nodes=2", Plan(
        tensor_x=4, pipeline=4, schedule="gpipe", precision="fp8", global_batch=8,
    )),
]  # fmt: skip


@pytest.mark.parametrize(("model", "machine", "plan"), OTHERS)
def test_plots_of_other_plans_hold_what_they_promise(model: str, machine: str, plan: Plan) -> None:
    one = predict(model, machine, plan, stack="any")
    memory = memory_plot(one)
    assert max(memory.data[-2]["y"]) == pytest.approx(one.peak_memory_bytes / 2**30, rel=1e-4)
    assert all(a < b for a, b in pairwise(memory.data[-2]["x"][1:-1]))  # each moment once
    device = one.machine.device
    roof, slope = device.peak_flop_per_s[plan.precision] / 1e12, device.memory_bandwidth_bytes_per_s / 1e12
    rows = roofline_plot(one).table.rows
    assert rows
    assert [row for row in rows if float(row[2]) > 1.001 * min(roof, float(row[1]) * slope)] == []
    stages = {stage for trace in timeline_plot(one).data for stage in trace["y"]}
    assert stages == {f"stage {number}" for number in range(plan.pipeline)}
    for plot in (breakdown_plot(one), path_plot(one, critical_path(one.step, device))):
        seconds = plot.table.columns.index("seconds")
        assert sum(float(row[seconds]) for row in plot.table.rows) == pytest.approx(one.step_time_s)
    bars = breakdown_plot(one).data[0]["y"]
    assert len(set(bars)) == len(bars)  # two of one name would be one bar


def test_no_operation_is_above_its_roof(page: Page) -> None:
    # A100: 312 TFLOP/s and 2.039 TB/s
    rows = _plot(page, "roofline").table.rows
    assert rows
    assert [row for row in rows if float(row[2]) > min(312.0, float(row[1]) * 2.039)] == []


def test_the_front_is_better_with_every_step(page: Page) -> None:
    front = _plot(page, "front").data[-2]
    assert front["x"] == sorted(front["x"])
    assert front["y"] == sorted(front["y"], reverse=True)


def test_the_front_is_of_plans_that_fit(page: Page, prediction: Prediction) -> None:
    plot = _plot(page, "front")
    front, capacity = plot.data[-2:]
    assert front["name"] == "Pareto front"
    assert set(capacity["y"]) == {prediction.memory_capacity_bytes / 2**30}
    assert max(front["y"]) <= capacity["y"][0]
    # by hand: no row that fits is at least as good in both as one on the front, and better in one
    rows = [row for row in plot.table.rows if row[3] != "does not fit"]
    better = [
        (a, b) for a in rows if a[3] == "yes" for b in rows
        if b[1] <= a[1] and b[2] <= a[2] and (b[1] < a[1] or b[2] < a[2])
    ]  # fmt: skip
    assert better == []
    assert sum(row[3] == "yes" for row in rows) == len(front["x"])


def test_scaling_has_fewer_and_more_replicas(page: Page, prediction: Prediction) -> None:
    rows = _plot(page, "scaling").table.rows
    assert [row[0] for row in rows] == [8, 16, 32, 64, 128]  # 1 to 16 replicas of 8 devices
    assert rows[0][2] == "100.0 %"
    assert rows[1][1] == pytest.approx(prediction.tokens_per_s, rel=1e-5)
    star = _plot(page, "scaling").data[-1]
    assert (star["x"], star["y"]) == ([16], [rows[1][1]])


@pytest.mark.parametrize(
    ("machine", "data", "counts"),
    [
        ("dgx-h100:nodes=1", 2, [4, 8, 16, 32, 64]),  # a generic machine has as many nodes as are asked for
        ("selene:nodes=1", 2, [4, 8, 16, 32, 64]),  # 560 nodes in all
        ("jean-zay-v100:nodes=396", 396, [396, 792, 1584]),  # 612 nodes in all
    ],
)
def test_scaling_goes_as_far_as_the_machine_has_nodes(machine: str, data: int, counts: list[int]) -> None:
    plan = Plan(tensor_x=4, data=data, global_batch=data, precision="fp16", recompute="full")
    one = predict("gpt-5b", machine, plan)
    assert [count for count, _ in _scaled(one, ())] == counts


def test_how_far_to_trust_it_counts_the_runs_of_each_regime(page: Page, prediction: Prediction) -> None:
    section = next(each for each in page.sections if each.title == "How far to trust it")
    assert section.table is not None
    names, runs = [row[0] for row in section.table.rows], [row[1] for row in section.table.rows]
    assert names[0] == "all runs"
    assert runs == sorted(runs, reverse=True)  # each is part of the one before it
    found = attach_interval(prediction)
    assert (found.regime, found.rows) in zip(names, runs, strict=True)
    assert f"{found.rows:,} published runs of the regime “{found.regime}”" in section.paragraphs[0]


def test_a_plan_that_does_not_fit_is_drawn_apart() -> None:
    prediction = predict("llama2-70b", "dgx-h100:nodes=4", Plan(tensor_x=8, data=4, global_batch=32))
    assert not prediction.fits
    page = page_of(step_report(prediction, []))
    plot = _plot(page, "front")
    assert plot.table.rows[0][3] == "does not fit"
    assert max(plot.data[-2]["y"]) <= 80.0  # GiB of an H100
    items = next(each for each in page.sections if each.title == "Plans one step away").items
    assert all(": fits (" in item for item in items if not item.startswith("with "))


def test_the_limit_is_what_takes_most_of_the_critical_path(page: Page) -> None:
    chain = _plot(page, "critical-path")
    spent: dict[str, float] = {}
    for row in chain.table.rows:
        spent[str(row[1])] = spent.get(str(row[1]), 0.0) + float(row[2])
    most = max(spent, key=lambda name: spent[name])
    assert chain.alternative.endswith(f"most is limited by {most}.")
    assert page.sections[0].table is not None
    assert ("limited by", most) in page.sections[0].table.rows


def test_it_is_one_small_file_that_names_no_other(page: Page) -> None:
    text = html_of(page)
    ours = _without_library(text)
    assert len(text.encode()) < 6e6
    assert len(ours) < 1e6
    assert re.findall(r"""(?:src|href)=["'](?!#|data:,)[^"']*""", ours) == []
    assert re.findall(r"@import|url\(", ours) == []


class _Tags(HTMLParser):
    """Opening tags, and text outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_text_becomes_html() -> None:
    table = Table((WICKED,), [(WICKED,), (1.0,)])
    plot = Plot("front", WICKED, [{"type": "scatter", "name": WICKED}], {}, table)
    section = Section(WICKED, [WICKED], table, plot, [WICKED], [WICKED])
    wicked = _Tags()
    wicked.feed(html_of(Page(WICKED, WICKED, [section]), plotly="/" + WICKED))
    plain = _Tags()
    simple = Table(("a",), [("a",), (1.0,)])
    section = Section("a", ["a"], simple, Plot("front", "a", [], {}, simple), ["a"], ["a"])
    plain.feed(html_of(Page("a", "a", [section]), plotly="/a"))
    assert wicked.tags == plain.tags
    # title, h1, subtitle, contents, h2, paragraph, item, caption, two cells of each table, command
    assert wicked.text.count(WICKED) == 13


def test_markdown_and_csv_hold_the_same_figures(page: Page, prediction: Prediction) -> None:
    text = markdown_of(page)
    rows = list(csv.DictReader(io.StringIO(csv_of(page))))
    parts = [row for row in rows if row["section"] == "Where the time goes" and row["column"] == "seconds"]
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert sum(float(row["value"]) for row in parts) == pytest.approx(prediction.step_time_s)


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    page = Page("t", "s", [Section("a", table=Table(("x",), [("1|2\n3",)]))])
    assert "| 1\\|2 3 |" in markdown_of(page)


def test_commands_in_prose_are_code_and_large_figures_have_commas() -> None:
    section = Section(
        "a", ["run `towtank tune` & wait"], Table(("x",), [(12345.678,), (0.0123456,), (123456,)])
    )
    text = html_of(Page("t", "s", [section]))
    assert "<p>run <code>towtank tune</code> &amp; wait</p>" in text
    cells = re.findall(r'<td class="number"[^>]*>(.*?)</td>', text)
    assert cells == ["12,346", "0.01235", "123,456"]
