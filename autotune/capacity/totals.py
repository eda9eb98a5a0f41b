"""Predicted device-hours of whole training runs beside the published ones.

`python -m towtank.autotune.capacity.totals` predicts each of `published/totals.yaml` and writes docs/totals.md.
Nothing is fitted to these rows.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.capacity.published import PublishedTotal, published_totals
from towtank.autotune.capacity.request import Operation, Uncertainty
from towtank.autotune.capacity.study import CapacityPlan, Quantiles, Request, plan_run, quantiles
from towtank.autotune.scaling.series import ScalePoint
from towtank.autotune.scaling.study import Study, tune_point
from towtank.autotune.space.constraints import Constraints
from towtank.hardware_profiles.load import load_machine
from towtank.hardware_profiles.records import Machine
from towtank.hardware_profiles.units import parse_quantity
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_from_mapping
from towtank.simulator.stacks.load import load_stack

SEARCH_S = 15.0
RUNS = 100
DOCUMENT = Path("docs/totals.md")


@dataclass(frozen=True, slots=True)
class PredictedTotal:
    """A published total and what is predicted for it."""

    name: str
    published: PublishedTotal
    device_hours: Quantiles
    plan: Plan

    @property
    def ratio(self) -> float:
        """Predicted over published device-hours."""
        return self.device_hours.median / self.published.device_hours

    @property
    def error(self) -> float:
        """Absolute relative error."""
        return abs(self.ratio - 1)

    @property
    def held(self) -> bool:
        """Whether the interval of 90 % holds the published figure."""
        return self.device_hours.low <= self.published.device_hours <= self.device_hours.high


def median_error(totals: Sequence[PredictedTotal]) -> float:
    """Median of the absolute relative errors."""
    return float(np.median([one.error for one in totals]))


def share_held(totals: Sequence[PredictedTotal]) -> float:
    """Share of the published figures that lie in their interval."""
    return float(np.mean([one.held for one in totals]))


def predict_total(name: str, published: PublishedTotal, runs: int = RUNS) -> PredictedTotal:
    """Predict the device-hours of one published run.

    Raises:
        CapacityError, PlanError, TuningError: its facts contradict each other.
    """
    model, machine = load_model(published.model), load_machine(published.machine)
    storage = published.storage_write
    operation = Operation(
        # None would take the rates of the device, which the hours of steps alone do not hold
        failures_per_node_day=None if published.failures else 0.0,
        reliability=published.failures,
        storage_bytes_per_s=None if storage is None else parse_quantity(storage, "bytes_per_s"),
        spare_nodes=published.spare_nodes,
    )
    request = Request(
        model, published.tokens, published.global_batch, load_stack(published.stack), operation=operation,
        uncertainty=Uncertainty(runs=runs), search_budget_s=SEARCH_S,
    )  # fmt: skip
    plan = _plan(request, machine, published)
    return PredictedTotal(name, published, _hours(plan_run(request, machine, plan), published), plan)


def _plan(request: Request, machine: Machine, published: PublishedTotal) -> Plan:
    if published.plan is not None:
        return plan_from_mapping({**published.plan, "global_batch": published.global_batch})
    constraints = Constraints(fixed={field: (value,) for field, value in published.known.items()})
    study = Study(machine, request.stack, constraints=constraints, budget_s=request.search_budget_s)
    point = tune_point(study, ScalePoint(published.devices, request.model, published.global_batch))
    if point.found is None:
        raise CapacityError([f"no plan: {point.why_not}"])
    return point.found.plan


def _hours(made: CapacityPlan, published: PublishedTotal) -> Quantiles:
    if published.counted == "steps":
        hours = [run.parts_s["training"] / 3600.0 * made.devices for run in made.outcomes.runs]
        return quantiles(hours)
    found = made.billed("device_hours")
    assert found is not None  # device-hours need no figure of a profile
    return found


def document(totals: Sequence[PredictedTotal]) -> str:
    """The page that shows every total beside its prediction."""
    rows = [
        f"| {one.name} | {one.published.devices:,} {load_machine(one.published.machine).device.name} "
        f"| {one.published.stack} | {_plan_words(one.published)} "
        f"| {one.published.device_hours:,.0f} | {one.device_hours.median:,.0f} "
        f"| {one.device_hours.low:,.0f} to {one.device_hours.high:,.0f} | {one.ratio:.2f} "
        f"| {'yes' if one.held else 'no'} |"
        for one in totals
    ]
    grounds = [
        f"- **{one.name}**: {one.published.source}. Stack: {one.published.why_stack}. "
        f"Failures: {one.published.failures or 'none'}{', by analogy' if one.published.failures else ''}. "
        f"Assumed: {'; '.join(one.published.assumed) or 'nothing'}."
        for one in totals
    ]
    missing = [f"- {name}: {why}" for name, why in published_totals().not_predicted.items()]
    return "\n".join(
        [
            "# Device-hours of whole training runs", "",
            "Written by `python -m towtank.autotune.capacity.totals`. Nothing is fitted to these totals. "
            "Where a plan was published it is predicted, else the tuned one; the interval is that of 5 to 95 % of "
            "the simulated runs. "
            "Hours are those of held devices, spares too; those of Pythia are of logged steps alone.", "",
            f"{len(totals)} runs, median error {median_error(totals) * 100:.1f} %, the interval holds "
            f"{share_held(totals) * 100:.0f} %.", "",
            "| run | devices | stack | plan | published | predicted | interval | ratio | held |",
            "|---|---|---|---|--:|--:|--:|--:|---|", *rows, "",
            *_WHY, "", "## Grounds", "", *grounds, "", "## Published, but not predicted", "", *missing, "",
        ]
    )  # fmt: skip


def _plan_words(published: PublishedTotal) -> str:
    return "published" if published.plan else "partly published" if published.known else "tuned"


_WHY = (
    "A ratio below 1 says that the run took longer than predicted. Published hours hold what no plan knows: "
    "restarts by hand, phases on fewer devices, tests. A tuned plan is faster than what people ran, and the "
    "software of the stack may be newer than theirs. Open-Qwen2VL shows what a language model alone leaves "
    "out: its image encoder and its reading of images. GPT-NeoX ran with partitioned activations and a "
    "synchronisation after each layer, which no stack here has.",
)


def main(arguments: Sequence[str]) -> int:
    """Predict the named totals, or all; write the page when all are asked."""
    known = published_totals().runs
    unknown = [name for name in arguments if name not in known]
    if unknown:
        sys.stderr.write(f"unknown: {', '.join(unknown)} (known: {', '.join(known)})\n")
        return 2
    found = []
    for name in arguments or known:
        found.append(predict_total(name, known[name]))
        one = found[-1]
        sys.stdout.write(f"{name:18s} {one.ratio:5.2f} {'held' if one.held else 'outside'}\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"median error {median_error(found):.3f}, interval holds {share_held(found):.2f} of {len(found)}\n"
    )
    if not arguments:
        DOCUMENT.write_text(document(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
