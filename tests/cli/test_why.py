"""`towtank why` and `towtank compare`."""

import json
from pathlib import Path

import pytest

from towtank.validation.memory_margin import memory_margin

PLAN = """\
schema: 1
model: gpt-5b
machine: selene:nodes=1
tensor_x: 2
pipeline: 2
data: 2
global_batch: 16
recompute: full
"""


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return str(path)


@pytest.fixture
def other(tmp_path: Path) -> str:
    """Another machine and stack."""
    path = tmp_path / "other.yaml"
    path.write_text(
        "schema: 1\nmodel: gpt-5b\nmachine: dgx-h100:nodes=1\nstack: torchtitan\n"
        "data: 8\nzero_stage: 3\nglobal_batch: 16\n"
    )
    return str(path)


def test_why_says_what_is_legal_fits_limits_and_is_better(towtank, plan: str) -> None:
    outcome = towtank("why", plan)

    assert outcome.code == 0
    assert outcome.err == ""
    for phrase in (
        "gpt-5b on 8 GPUs of",
        "legal       yes, under megatron-core",
        "memory      fits: ",
        "limited by  compute ",
        "Neighbours: ",
        "recompute full -> none: the plan is ",
        "slower: recomputation +",
        "neighbours are faster, the best by",
    ):
        assert phrase in outcome.out, outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_why_of_an_illegal_plan_answers_with_the_rules(towtank, plan: str) -> None:
    outcome = towtank("why", plan, "--set", "tensor_x=3", "--devices", "8")

    assert outcome.code == 0
    assert "ILLEGAL, " in outcome.out
    assert "- tensor degrees 3 x 1 x 1 x data 2 x pipeline 2 = 12, but 8 devices were asked" in outcome.out
    assert "attention heads = 32 must be a multiple of tensor_x = 3" in " ".join(outcome.out.split())


def test_why_of_a_plan_that_does_not_fit(towtank, plan: str) -> None:
    outcome = towtank("why", plan, "--set", "tensor_x=1,pipeline=1,data=8", "--machine", "perlmutter:nodes=2")

    assert outcome.code == 0
    assert "but it DOES NOT FIT" in outcome.out
    assert "memory      does not fit by " in outcome.out
    assert "on stage 0: optimizer " in outcome.out


def test_why_against_another_plan_sums_the_differences(towtank, plan: str, tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    best.write_text(PLAN.replace("recompute: full", "recompute: none"))
    outcome = towtank("why", plan, "--against", str(best), "--json")
    document = json.loads(outcome.out)
    reason = document["against"]["reason"]

    assert outcome.code == 0
    assert reason["verdict"] == "slower"
    assert sum(reason["difference_s"].values()) == pytest.approx(
        document["prediction"]["step_time_s"] - document["against"]["step_time_s"], rel=1e-9
    )
    text = towtank("why", plan, "--against", str(best)).out
    assert f"the plan is {reason['text'][:20]}" in text
    assert "Seconds a step more (+) or less (-) than that plan" in text


def test_why_as_json_counts_the_neighbours(towtank, plan: str) -> None:
    document = json.loads(towtank("why", plan, "--json", "--top", "2").out)
    counts = document["neighbours"]["counts"]

    assert document["legal"] is True
    assert counts["neighbours"] >= counts["legal"] >= counts["fit"] >= counts["simulated"] >= 2
    assert len(document["neighbours"]["best"]) == 2
    assert sum(limit["share"] for limit in document["limits"]) == pytest.approx(1.0)


def test_compare_puts_unlike_jobs_side_by_side(towtank, plan: str, other: str) -> None:
    outcome = towtank("compare", plan, other)

    assert outcome.code == 0
    for phrase in (
        "under megatron-core",
        "under torchtitan",
        "A -> B: tensor_x 2 -> 1",
        "step time",
        "bubble",
    ):
        assert phrase in outcome.out, outcome.out
    assert "exposed all-gather weight_shard" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100
    document = json.loads(towtank("compare", plan, other, "--json").out)
    assert document["b"]["stack"] == "torchtitan"


def test_a_plan_compares_with_itself_under_other_settings(towtank, plan: str) -> None:
    outcome = towtank("compare", plan, plan, "--set-b", "recompute=none")

    assert outcome.code == 0
    assert "A -> B: recompute full -> none" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "phrases"),
    [
        (["why", "no.yaml"], ["no.yaml", "cannot be read"]),
        (["why", "PLAN", "--machine", "selen"], ["did you mean 'selene'"]),
        (["why", "PLAN", "--against", "no.yaml"], ["no.yaml"]),
        (["why"], ["PLAN.yaml"]),
        (["why", "PLAN", "--against", "no.yaml", "--set", "tensor_q=2"], ["2 inputs", "no.yaml", "tensor_q"]),
        (["why", "PLAN", "--devices", "0"], ["--devices", "1"]),
        (["compare", "PLAN", "no.yaml"], ["no.yaml"]),
        (["compare", "PLAN", "PLAN", "--set-a", "tensor_x=3", "--set-b", "tensor_x=5"], ["2 inputs", "= 3", "= 5"]),
        (["compare", "PLAN"], ["B.yaml"]),
    ],
)  # fmt: skip
def test_wrong_input_is_one_clear_message(
    towtank, plan: str, arguments: list[str], phrases: list[str]
) -> None:
    outcome = towtank(*(plan if word == "PLAN" else word for word in arguments))

    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("towtank: ")
    for phrase in phrases:
        assert phrase in outcome.err, outcome.err


def test_why_keeps_the_room_that_tune_keeps(towtank, tmp_path: Path) -> None:
    path = tmp_path / "tight.yaml"
    path.write_text(
        "schema: 1\nmodel: llama3-8b\nmachine: dgx-h100:nodes=1\nstack: nanotron\n"
        "tensor_x: 4\npipeline: 2\nglobal_batch: 8\nmicro_batch: 2\nsequence_parallel: true\n"
    )
    share = memory_margin("nanotron").share
    for options, expected in (
        ((), share),
        (("--memory-margin", "0"), 0.0),
        (("--memory-margin", "60%"), 0.6),
    ):
        document = json.loads(towtank("why", str(path), "--json", *options).out)
        limit = 80 * 2**30 / (1 + expected)
        assert document["memory_margin"] == expected
        assert all(each["peak_memory_bytes"] <= limit for each in document["neighbours"]["best"])
        beyond = document["neighbours"]["out_of_reach"]
        assert beyond is None or beyond["peak_memory_bytes"] > limit
    own = document["prediction"]["peak_memory_bytes"]
    assert 80 / 1.6 < own / 2**30 < 80
    tight = " ".join(towtank("why", str(path), "--memory-margin", "60%").out.split())
    assert f"less than the {own * 0.6 / 2**30:.1f} GiB (60.0 %) that tune keeps" in tight
    assert "fit with 60.0 % of memory to spare" in tight
    free = " ".join(towtank("why", str(path), "--memory-margin", "0").out.split())
    assert "that tune keeps" not in free
    assert "to spare" not in free


def test_a_wrong_margin_is_told_with_what_else_is_wrong(towtank, plan: str) -> None:
    outcome = towtank("why", plan, "--memory-margin", "much", "--set", "tensor_q=2")
    assert outcome.code == 2
    assert "2 inputs are wrong" in outcome.err
    assert "--memory-margin much: must be auto" in outcome.err
    assert "tensor_q" in outcome.err
