"""Exact search against brute force on random small spaces."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from towtank import load_machine, load_model, load_stack, predict
from towtank.autotune.constraints import Constraints
from towtank.autotune.errors import TuningError
from towtank.autotune.judge.bound import step_bound_s, work_bound_s
from towtank.autotune.judge.coarse import coarse_bound_s, compute_floor_s
from towtank.autotune.search import judging, narrowing, probing, queue
from towtank.autotune.search.exact import tune
from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.task import TuningTask

MOST = 400
"""Plans of a space that are predicted one by one."""


@st.composite
def tasks(draw):
    """A small task: a tiny model of random shape, some devices, a batch, a stack, and constraints."""
    model = load_model(draw(st.sampled_from(["tiny-llama", "tiny-gpt", "tiny-moe", "tiny-mla"])))
    model = replace(model, num_layers=draw(st.integers(1, 6)), vocab=draw(st.sampled_from([1000, 32_000])))
    devices = draw(st.sampled_from([1, 2, 4, 6, 8]))
    fixed = {"rank_order": (("tensor_y", "tensor_x", "context", "tensor_z", "data", "pipeline"),)}
    most = {}
    if draw(st.booleans()):
        fixed["micro_batch"] = draw(st.sampled_from([(1,), (1, 2), (2, 4)]))
    degrees = ["tensor_x", "tensor_y", "tensor_z", "context", "pipeline"]
    for name in draw(st.lists(st.sampled_from(degrees), unique=True)):
        most[name] = draw(st.sampled_from([1, 2]))
    if draw(st.booleans()):
        fixed["zero_stage"] = draw(st.sampled_from([(0,), (1,), (0, 3), (2, 3)]))
    return TuningTask(
        model,
        load_machine(draw(st.sampled_from(["dgx-h100:nodes=1", "perlmutter", "selene"]))),
        load_stack(draw(st.sampled_from(["any", "megatron-core", "torchtitan", "axonn", "nanotron"]))),
        devices,
        draw(st.sampled_from([devices, 2 * devices, 12])),
        draw(st.sampled_from([256, 1024])),
        constraints=Constraints(fixed=fixed, most=most),
        memory_margin=draw(st.sampled_from([0.0, 0.1])),
    )


def drawn_part(task):
    """The task, limited to fewer dimensions until its space is small; None where that leaves none."""
    for name, only in (("recompute", ("none", "full")), ("virtual_stages", (1,)), ("context_kind", ("ring",)),
                       ("overlap.tensor", (None,)), ("data_shard", (None,)), ("recompute_every", (1,)),
                       ("tensor_y", (1,)), ("context", (1,)), ("recompute", ("none",))):  # fmt: skip
        try:
            if legal_plans(task).num_rows <= MOST:
                return task
        except TuningError:
            return None
        limits = task.constraints
        most = {key: each for key, each in limits.most.items() if key != name}
        task = replace(task, constraints=replace(limits, fixed={**limits.fixed, name: only}, most=most))
    return None


def brute_force(task):
    """(step time, peak memory, row) of every legal plan, in the order of the answer."""
    table = legal_plans(task)
    steps = [
        predict(task.model, task.machine, table.plan(row), stack=task.stack) for row in range(table.num_rows)
    ]
    return table, sorted((step.step_time_s, step.peak_memory_bytes, row) for row, step in enumerate(steps))


@pytest.mark.slow
@given(
    tasks(), st.sampled_from([1, 3, 10]), st.floats(0.1, 1.0), st.sampled_from([4, 64, 2048]), st.booleans()
)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_random_space_has_the_winner_of_brute_force(task, top, share, batch, probes):
    task = drawn_part(task)
    assume(task is not None)
    table, every = brute_force(task)
    seconds = np.array([each for _, each in sorted((row, each) for each, _, row in every)])
    assert 0 < compute_floor_s(task) <= seconds.min()
    for bound_s in (coarse_bound_s, work_bound_s, step_bound_s):
        assert np.all(bound_s(task, table) <= seconds * (1 + 1e-12)), bound_s
    limit = float(np.quantile([peak for _, peak, _ in every], share))
    device = replace(task.machine.device, memory_capacity_bytes=limit * (1 + task.memory_margin) * (1 + 1e-9))
    task = replace(task, machine=replace(task.machine, device=device))
    expected = [each for each in every if each[1] <= task.memory_limit_bytes()]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(narrowing, "_FIRST_BATCH", batch)
        patched.setattr(narrowing, "_PROBES", 3)
        patched.setattr(queue, "FIRST_ROUND", 1)
        patched.setattr(judging, "_SMALL", 0 if probes else 10**6)
        patched.setattr(judging, "_BLOCK", 50)
        patched.setattr(probing, "_DRAWN", 10)
        result = tune(task, top=top, workers=1, budget_s=1e6 if probes else None)
    assert result.proven and all(each.proven for each in result.plans)
    assert [(each.step_time_s, each.peak_memory_bytes, each.plan) for each in result.plans] == [
        (step_s, peak, table.plan(row)) for step_s, peak, row in expected[:top]
    ]
    counts = result.counts
    assert counts.legal == table.num_rows and counts.do_not_fit == table.num_rows - len(expected)
    assert counts.legal == counts.do_not_fit + counts.pruned + counts.simulated and counts.open == 0
