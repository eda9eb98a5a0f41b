"""No plan is recommended that does not fit: published runs that failed, and what the search answers for them."""

from collections import defaultdict
from dataclasses import dataclass

import pytest

from towtank.autotune.search.exact import tune
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Plan
from towtank.validation.express import Expressed, express
from towtank.validation.memory_margin import memory_margin
from towtank.validation.rows import FAILED, RUNS, Run, read_runs

pytestmark = pytest.mark.slow

TOP = 5
NOT_REACHED = {
    # predicted to need 67 to 71 GiB, and the measured margin leaves 73 of 80 to plans. The same mapping of the 1B
    # model failed on 16, 32 and 64 devices too, and ran in another attempt: the source draws one mark for "out of
    # memory or crash"
    ("Llama-like 3B", 8),
    ("Llama-like 3B", 16),
    ("Llama-like 3B", 32),
    ("Llama-like 3B", 64),
    # 52 of 80 GiB on 512 devices; the same mapping of half as many replicas ran: not for want of memory
    ("Llama-like 8B", 512),
}
"""Jobs (model, devices) for which the goal is not reached: a failed configuration is among the first plans."""

Mapping = tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """One model on so many devices, and what became of its configurations."""

    expressed: Expressed
    failed: dict[Mapping, str]
    """Row of each configuration that failed and never ran."""


def _mapping(plan: Plan) -> Mapping:
    return (plan.tensor_x, plan.data, plan.pipeline, plan.micro_batch, plan.zero_stage)


def _of_sweep(run: Run) -> bool:
    return "Nanotron" in run.source and "sweep" in run.source


@pytest.fixture(scope="module")
def jobs() -> dict[tuple[str, int], Job]:
    ran = defaultdict(set)
    for run in read_runs(RUNS):
        if _of_sweep(run) and isinstance(row := express(run), Expressed):
            ran[run.model, row.plan.num_devices].add(_mapping(row.plan))
    found: dict[tuple[str, int], Job] = {}
    for run in read_runs(FAILED):
        row = express(run)
        if not isinstance(row, Expressed):
            continue  # not even legal: the search cannot answer it
        key = (run.model, row.plan.num_devices)
        job = found.setdefault(key, Job(row, {}))
        if _mapping(row.plan) not in ran[key]:
            job.failed[_mapping(row.plan)] = run.id
    return found


def test_failed_configurations_are_not_among_the_first_plans(jobs, capsys) -> None:
    hits = {}
    for key, job in sorted(jobs.items()):
        row = job.expressed
        task = TuningTask(
            row.model,
            row.machine,
            row.stack,
            key[1],
            row.plan.global_batch,
            row.plan.sequence,
            memory_margin=memory_margin(row.stack.name).share,
        )
        for ranked in tune(task, top=TOP, workers=1).plans:
            name = job.failed.get(_mapping(ranked.plan))
            if name is not None and ranked.plan.recompute == "none":
                hits.setdefault(
                    key, f"{name} is number {ranked.rank}, {ranked.peak_memory_bytes / 2**30:.1f} GiB"
                )
    with capsys.disabled():
        print(f"\nfailed configurations among the first {TOP} plans: {len(hits)} of {len(jobs)} jobs")
        for key, text in hits.items():
            print(f"  {key[0]} on {key[1]}: {text}")
    assert len(jobs) >= 27
    assert set(hits) <= NOT_REACHED
