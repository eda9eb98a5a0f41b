"""The result of a search as a person likes to read it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from towtank.cli.memory_margin import does_not_fit_words
from towtank.cli.prediction_text import layout
from towtank.cli.text import count, gibibytes, paragraph, percent, plural, seconds, significant, table

if TYPE_CHECKING:
    from towtank.autotune.search.records import SearchResult
    from towtank.autotune.search.report import Entry, SearchReport
    from towtank.simulator.plan import Plan
    from towtank.simulator.stacks.records import Stack


def search_text(
    report: "SearchReport", commands: Sequence[str], engine: str, margin_note: str | None = None
) -> str:
    """Counts and proof, the best plans, why the others lost, what the answer stands on, what to type next."""
    result = report.result
    sections = [
        f"{_headline(result)}\n{paragraph(counts_text(result), indent=0)}",
        _best(report, engine),
        *([_lost(report)] if len(report.entries) > 1 else []),
        *([_near_misses(report)] if report.near_misses else []),
        _stands_on(report, engine, margin_note),
        "Next\n" + "\n".join(f"  {command}" for command in commands),
    ]
    return "\n\n".join(sections)


def _headline(result: "SearchResult") -> str:
    task = result.task
    sequence = task.sequence or task.model.sequence
    return (
        f"{task.model.name} on {plural(task.devices, task.machine.device.unit)} of {task.machine.name}, "
        f"{count(task.global_batch)} sequences of {count(sequence)} tokens, stack {task.stack.name}"
    )


def counts_text(result: "SearchResult") -> str:
    """What became of the plans and whether the winner is proven, as one line."""
    counts = result.counts
    parts = [
        f"{count(counts.legal)} legal plans{'' if result.listed else ' looked at, of more that were not listed'}",
        f"{count(counts.do_not_fit)} {does_not_fit_words(result.task.memory_margin)}",
        f"{count(counts.pruned)} pruned by bound",
        f"{count(counts.simulated)} simulated",
        *([f"{count(counts.open)} not looked at"] if counts.open else []),
    ]
    return f"{', '.join(parts)}; {_proof(result)} ({seconds(result.elapsed_s)})"


def _proof(result: "SearchResult") -> str:
    proven = sum(each.proven for each in result.plans)
    if proven == len(result.plans):
        return "winner proven" if proven == 1 else f"winner proven, and so are all {proven} ranks"
    why = "stopped by Ctrl-C" if result.stopped == "interrupt" else "stopped by --budget"
    if result.proven:
        return f"winner proven, ranks beyond {proven} not ({why})"
    return f"winner NOT proven: {why}, it can be {percent(result.gap)} behind the best at most"


def _best(report: "SearchReport", engine: str) -> str:
    finalists = any(entry.ranked.reference_s is not None for entry in report.entries)
    heads = [
        "",
        "step",
        "behind",
        "tokens/s",
        "MFU",
        "memory",
        "bound",
        *([engine] if finalists else []),
        "plan",
    ]
    telling = telling_words([entry.ranked.plan for entry in report.entries], report.result.task.stack)
    rows = [_row(entry, finalists, words) for entry, words in zip(report.entries, telling, strict=True)]
    return "Best plans\n" + table(rows, heads, right=range(len(heads) - 1))


def _row(entry: "Entry", finalists: bool, telling: str) -> list[str]:
    ranked = entry.ranked
    reference = "" if ranked.reference_s is None else seconds(ranked.reference_s)
    return [
        str(ranked.rank),
        seconds(ranked.step_time_s),
        "" if ranked.rank == 1 else percent(entry.behind),
        significant(entry.tokens_per_s),
        percent(entry.mfu),
        gibibytes(ranked.peak_memory_bytes),
        seconds(ranked.bound_s),
        *([reference] if finalists else []),
        plan_words(ranked.plan) + telling,
    ]


def plan_words(plan: "Plan") -> str:
    """A plan in one line: degrees, then what differs from doing without."""
    words = [layout(plan), f"micro-batch {plan.micro_batch}"]
    if plan.virtual_stages > 1:
        words.append(f"{plan.virtual_stages} chunks a stage")
    if plan.zero_stage:
        shards = "" if plan.shard_degree == plan.data else f" over {plan.shard_degree}"
        words.append(f"ZeRO {plan.zero_stage}{shards}")
    if plan.sequence_parallel:
        words.append("sequence parallel")
    if plan.context > 1:
        words.append(f"context by {plan.context_kind}")
    if plan.recompute != "none":
        every = f" one layer in {plan.recompute_every}" if plan.recompute_every > 1 else ""
        words.append(f"recompute {plan.recompute}{every}")
    return ", ".join(words)


def telling_words(plans: Sequence["Plan"], stack: "Stack") -> list[str]:
    """For each plan what `plan_words` leaves out and is not the same in all of them, such as `, overlap.tensor on`;
    so that no two rows of a table look alike."""
    from towtank.autotune.reasons.neighbours import in_force, word

    values = [in_force(plan, stack) for plan in plans]
    names = [
        name
        for name in values[0]
        if name not in _SAID and any(each[name] != values[0][name] for each in values)
    ]
    # chunks a stage say that a schedule is interleaved; an order of ranks of one is none
    return [
        "".join(
            f", {name} {word(_short(name, each[name], plan))}"
            for name in names
            if each[name] not in (None, "interleaved")
        )
        for plan, each in zip(plans, values, strict=True)
    ]


def _short(name: str, value: Any, plan: "Plan") -> Any:
    if name != "rank_order":
        return value
    return tuple(each for each in value if plan.degree(each) > 1)


_SAID = {
    "tensor_x", "tensor_y", "tensor_z", "context", "pipeline", "data", "expert", "expert_tensor", "micro_batch",
    "virtual_stages", "zero_stage", "data_shard", "sequence_parallel", "context_kind", "recompute",
    "recompute_every",
}  # fmt: skip
"""Fields that `plan_words` names."""


def _near_misses(report: "SearchReport") -> str:
    winner = report.result.plans[0].step_time_s
    lines = []
    for each in report.near_misses:
        gain = "" if each.step_time_s is None else f"{percent(1 - each.step_time_s / winner)} faster, but "
        lines.append(paragraph(f"- {each.change}: {gain}{each.reason.text}"))
    return "Near misses (one step from the best plan)\n" + "\n".join(lines)


def _lost(report: "SearchReport") -> str:
    lines = [
        paragraph(f"{entry.ranked.rank}. {entry.change}: {entry.reason.text}")
        for entry in report.entries
        if entry.reason is not None
    ]
    return "Why the others lost (what they change, and what that costs)\n" + "\n".join(lines)


def _stands_on(report: "SearchReport", engine: str, margin_note: str | None) -> str:
    found, interval = report.winner, report.interval
    assert found is not None and interval is not None  # there is a winner
    lines = [
        f"step time of the winner, {interval.nominal * 100:.0f} % interval: {seconds(interval.low_s)} to "
        f"{seconds(interval.high_s)} ({interval.rows} {interval.runs}, {interval.regime}); plans that are closer "
        "than that may change places on the machine",
        *(f"extrapolated: {reason}" for reason in interval.extrapolated),
        *([margin_note] if margin_note else []),
        *found.provenance,
    ]
    order = report.order_by_reference
    if order and order != tuple(sorted(order)):
        ranks = ", ".join(map(str, order))
        lines.insert(0, f"the engine {engine} puts the finalists in another order: ranks {ranks}")
    elif len(order) > 1:
        lines.insert(0, f"the engine {engine} keeps the order of the first {len(order)}")
    return "Mind\n" + "\n".join(paragraph(f"- {line}") for line in lines)


def nothing_fits_text(report: "SearchReport") -> str:
    """Which plan lacks least, where, and what would help."""
    result = report.result
    assert (
        result.closest is not None and report.obstacle is not None
    )  # no legal plan at all is an error before
    plan, task = result.closest, result.task
    text = (
        f"none of the {plural(result.counts.legal, 'legal plan')} of {task.model.name} on "
        f"{plural(task.devices, task.machine.device.unit)} fits into {_room(result)}\n"
        f"  the smallest one, {plan_words(plan)}, {report.obstacle.text}\n"
        f"  what helps: {'; '.join(_help(report))}"
    )
    return text


def _room(result: "SearchResult") -> str:
    """The memory of a device, with what stays free of it."""
    margin = result.task.memory_margin
    memory = gibibytes(result.memory_limit_bytes * (1.0 + margin))
    return f"{memory} with {percent(margin)} to spare for the error of predicted memory" if margin else memory


def _help(report: "SearchReport") -> list[str]:
    task = report.result.task
    constraints = task.constraints
    found = ["more devices (--devices)"]
    if constraints.fixed or constraints.least or constraints.most:
        found.append("fewer constraints (--fix, --min, --max)")
    capacity = task.machine.device.memory_capacity_bytes
    if capacity is not None and (report.result.closest_peak_bytes or float("inf")) <= capacity:
        found.insert(0, "less room for the error of predicted memory (--memory-margin 0)")
    has = task.stack.supports
    if 3 not in has.zero_stages or not has.pipeline or not has.virtual_stages:
        found.append("a stack that shards or splits more (--stack any)")
    found += ["shorter sequences (--sequence)", "all values of each dimension (--free all)"]
    return found
