"""`towtank tune` on the command line."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

SMALL = [
    "tune", "--model", "tiny-llama", "--machine", "dgx-h100:nodes=1", "--global-batch", "16", "--stack",
    "megatron-core", "--workers", "1", "--finalists", "1", "--top", "3",
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def schema(root: Path) -> dict:
    return json.loads((root / "autotune/search/result.schema.json").read_text())


def test_text_and_plan_file(towtank):
    done = towtank(*SMALL)
    assert done.code == 0 and not done.err
    assert "legal plans" in done.out and "do not fit" in done.out and "winner proven" in done.out
    assert "towtank predict --plan plan.yaml" in done.out
    written = yaml.safe_load(Path("plan.yaml").read_text())
    assert (written["model"], written["machine"], written["stack"]) == (
        "tiny-llama", "dgx-h100:nodes=1", "megatron-core")  # fmt: skip
    predicted = json.loads(towtank("predict", "--plan", "plan.yaml", "--json").out)
    document = json.loads(towtank(*SMALL, "--json").out)
    assert predicted["step_time_s"] == document["plans"][0]["step_time_s"]
    assert predicted["peak_memory_bytes"] == document["plans"][0]["peak_memory_bytes"]
    assert max(map(len, done.out.splitlines())) <= 100


def test_json_keeps_its_schema(towtank):
    root = Path(__file__).parents[2]
    document = json.loads(towtank(*SMALL, "--json", "-o", "best.yaml").out)
    jsonschema.validate(document, schema(root))
    counts = document["counts"]
    assert counts["legal"] == counts["do_not_fit"] + counts["pruned"] + counts["simulated"]
    assert document["proven"] is True and document["gap"] == 0
    assert [plan["rank"] for plan in document["plans"]] == [1, 2, 3]
    times = [plan["step_time_s"] for plan in document["plans"]]
    assert times == sorted(times) and all(p["bound_s"] <= p["step_time_s"] for p in document["plans"])
    assert Path("best.yaml").exists() and not Path("plan.yaml").exists()


def test_constraints_hold(towtank):
    document = json.loads(towtank(*SMALL, "--json", "--fix", "tensor_x=2", "--max", "pipeline=1").out)
    assert all(p["plan"]["tensor_x"] == 2 and p["plan"].get("pipeline", 1) == 1 for p in document["plans"])


def test_all_that_is_wrong_is_told_at_once(towtank):
    Path("notes.txt").write_text("do not lose me")
    done = towtank(
        "tune", "--model", "tiny-lama", "--machine", "selen", "--global-batch", "16", "--stack", "megatron-cor",
        "--fix", "tensorx=8", "--budget", "soon", "--finalists-engine", "simpi", "-o", "notes.txt", "--workers", "0",
    )  # fmt: skip
    assert done.code == 2 and not done.out and "Traceback" not in done.err
    for word in (
        "tiny-lama",
        "selen",
        "megatron-cor",
        "tensorx",
        "--budget soon",
        "simpi",
        "notes.txt",
        "--workers",
    ):
        assert word in done.err
    assert Path("notes.txt").read_text() == "do not lose me"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--devices", "4096"], ["4,096 devices", "dgx-h100"]),
        (["--devices", "0"], ["devices = 0"]),
        (["--global-batch", "0"], ["global_batch = 0"]),
        (["--global-batch", "7", "--fix", "data=8", "--budget", "soon"], ["data = 8", "--budget soon"]),
        (["--budget", "-3s"], ["--budget"]),
        (["-o", "nowhere/plan.yaml"], ["no folder nowhere"]),
        (["--fix", "tensor_x"], ["--fix"]),
        (
            ["--sampler", "random", "--trials", "5"],
            ["--trials, --sampler: not read by --method exact", "optuna"],
        ),
        (
            ["--method", "axonn", "--measure", "cost"],
            ["--measure: not read by --method axonn"],
        ),
        (
            ["--price-per-device-hour", "2"],
            ["--price-per-device-hour: not read", "give --measure cost with a price"],
        ),
        (["--method", "optuna"], ["--top: not read by a study"]),
        (
            ["--measure", "throughput"],
            ["--top: not read by --method exact with --measure"],
        ),
        (["--worker"], ["--model, --machine,", "not read by --worker"]),
    ],
)
def test_bad_input_is_told_without_a_traceback(towtank, more, words):
    done = towtank(*SMALL, *more)
    assert done.code == 2 and not done.out and "Traceback" not in done.err
    assert all(word in done.err for word in words), done.err
    assert not Path("plan.yaml").exists()


def test_nothing_fits(towtank):
    done = towtank(
        "tune", "--model", "megatron-1t", "--machine", "selene", "--devices", "8", "--global-batch", "8",
        "--stack", "megatron-core", "--workers", "1", "--json", "--fix", "micro_batch=1",
    )  # fmt: skip
    assert done.code == 2
    document = json.loads(done.out)
    jsonschema.validate(document, schema(Path(__file__).parents[2]))
    assert document["plans"] == [] and document["proven"] is False
    assert document["counts"]["do_not_fit"] == document["counts"]["legal"] > 0
    room = document["memory_capacity_bytes"] / (1 + document["memory_margin"])
    missing = document["closest"]["peak_memory_bytes"] - room
    assert document["closest"]["reason"]["missing_bytes"] == missing > 0
    assert not Path("plan.yaml").exists()


def test_a_plan_file_is_replaced_and_another_file_with_force_only(towtank):
    Path("plan.yaml").write_text("schema: 1\ntensor_x: 4\n")
    assert towtank(*SMALL).code == 0
    Path("other.yaml").write_text("- a list\n")
    assert towtank(*SMALL, "-o", "other.yaml").code == 2
    assert towtank(*SMALL, "-o", "other.yaml", "--force").code == 0
    assert yaml.safe_load(Path("other.yaml").read_text())["model"] == "tiny-llama"


def test_a_plan_that_cannot_be_written_costs_no_answer(towtank, monkeypatch):
    def full(path, *_, **__):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    done = towtank(*SMALL, "--json")
    assert done.code == 2
    assert done.err == "towtank: --output plan.yaml: cannot be written: No space left on device\n"
    document = json.loads(done.out)
    assert document["proven"] and "output" not in document


def test_rows_of_the_table_differ_in_words(towtank):
    from towtank.cli.tune_text import plan_words, telling_words
    from towtank.simulator.plan import Overlap, Plan
    from towtank.simulator.stacks.load import load_stack

    plan = Plan(tensor_x=2, pipeline=2, data=2, global_batch=16, overlap=Overlap(tensor=True))
    order = ("tensor_x", "pipeline", "tensor_y", "tensor_z", "data", "context")
    plans = [plan, replace(plan, overlap=Overlap(tensor=False)), replace(plan, rank_order=order)]
    stack = load_stack("any")
    words = telling_words(plans, stack)
    assert "overlap.tensor on" in words[0] and "overlap.tensor off" in words[1]
    assert "rank_order tensor_x pipeline data" in words[2]
    assert len({plan_words(each) + more for each, more in zip(plans, words, strict=True)}) == 3
    assert telling_words(plans[:1], stack) == [""]


def test_near_misses_are_told(towtank):
    done = towtank(
        "tune", "--model", "gpt-10b", "--machine", "perlmutter:nodes=2", "--global-batch", "24", "--stack",
        "megatron-core", "--workers", "1", "--finalists", "0", "--top", "1", "--json",
    )  # fmt: skip
    document = json.loads(done.out)
    jsonschema.validate(document, schema(Path(__file__).parents[2]))
    verdicts = {each["reason"]["verdict"] for each in document["near_misses"]}
    assert verdicts == {"does not fit", "illegal"}
    large = next(each for each in document["near_misses"] if "step_time_s" in each)
    assert large["step_time_s"] < document["plans"][0]["step_time_s"] and large["reason"]["missing_bytes"] > 0


def test_interrupt_before_the_first_plan_is_told(towtank, monkeypatch):
    from towtank.autotune.search import exact

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(exact, "tune", interrupted)
    done = towtank(*SMALL)
    assert (done.code, done.out) == (130, "") and "before the first plan" in done.err
    assert not Path("plan.yaml").exists()


def test_counts_are_checked_with_names_that_are_wrong(towtank) -> None:
    done = towtank(
        "tune", "--model", "lama3-8b", "--machine", "dgx-h100", "--devices", "-8", "--global-batch", "0",
        "--budget", "soon",
    )  # fmt: skip
    assert done.code == 2
    assert "3 inputs are wrong" in done.err
    assert "--devices -8, --global-batch 0: must be 1 or more" in done.err
    assert "--budget soon: must be a time with its unit, such as 60s" in done.err
