"""Every dimension of a plan, and combinations of them, against one process."""

from collections.abc import Mapping

import pytest

from towtank.executor.equality.cases import CASES, NARROW_CASES, Case
from towtank.executor.equality.compare import TOLERANCES, Difference
from towtank.executor.equality.processes import differences
from towtank.executor.equality.random_plans import random_case

pytestmark = pytest.mark.slow

RANDOM = tuple(random_case(seed, devices) for seed, devices in ((1, 4), (2, 4), (0, 8)))


def named(case: Case) -> str:
    """Of a case, for pytest."""
    return f"{case.plan.num_devices}-{case.model}-{case.name}"


@pytest.fixture(scope="module")
def found() -> Mapping[str, Difference]:
    """All cases, so that processes start once for each number of them."""
    return {named(case): difference for case, difference in differences((*CASES, *NARROW_CASES, *RANDOM))}


def test_cases_cover_what_a_plan_can_say() -> None:
    plans = [case.plan for case in CASES]
    assert len({named(case) for case in CASES}) == len(CASES) >= 40
    assert sum(plan.num_devices > 1 for plan in plans) >= 40
    for name in (
        "tensor_x",
        "tensor_y",
        "tensor_z",
        "data",
        "context",
        "pipeline",
        "expert",
        "expert_tensor",
    ):
        assert sum(getattr(plan, name) > 1 for plan in plans) >= 3, name
    assert {plan.zero_stage for plan in plans} == {0, 1, 2, 3}
    assert {plan.schedule_name for plan in plans if plan.pipeline > 1} == {"gpipe", "1f1b", "interleaved"}
    assert {plan.recompute for plan in plans} == {"none", "selective", "full"}
    assert {plan.context_kind for plan in plans if plan.context > 1} == {"ring", "all-to-all"}
    assert any(1 < plan.shard_degree < plan.data for plan in plans)
    assert any(plan.stage_layers for plan in plans)
    assert any(plan.cached_layers for plan in plans)
    assert len({plan.rank_order for plan in plans}) >= 3
    assert sum(case.dropout > 0 for case in CASES) >= 4


@pytest.mark.parametrize("case", (*CASES, *RANDOM), ids=named)
def test_a_plan_trains_like_one_process(case: Case, found: Mapping[str, Difference]) -> None:
    difference = found[named(case)]
    assert difference.fault == ""
    assert difference.copies == 0.0
    assert difference.loss <= 1e-9
    assert difference.gradient_norm <= 1e-9
    assert difference.weights <= 1e-9


@pytest.mark.parametrize("case", NARROW_CASES, ids=named)
def test_a_plan_in_few_bits_trains_nearly_like_one_process(
    case: Case, found: Mapping[str, Difference]
) -> None:
    difference = found[named(case)]
    assert difference.fault == ""
    assert difference.copies == 0.0
    assert difference.loss <= TOLERANCES[case.dtype].loss
    assert difference.gradient_norm <= TOLERANCES[case.dtype].gradient_norm
