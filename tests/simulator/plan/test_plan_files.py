"""Plan files: what is written is read again, old files load, faults come all at once."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.simulator.errors import PlanError
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan
from towtank.simulator.plan_file import (
    dump_plan,
    load_plan,
    load_plan_file,
    parse_settings,
    plan_from_mapping,
    plan_to_mapping,
)

CAPTURES = Path(__file__).parents[2] / "captures" / "plans"
COUNT = st.integers(1, 4096)
SWITCH = st.sampled_from([None, True, False])

PLANS = st.builds(
    Plan,
    tensor_x=COUNT, tensor_y=COUNT, tensor_z=COUNT, data=COUNT, data_shard=st.none() | COUNT,
    zero_stage=st.integers(0, 3), sequence_parallel=st.booleans(), pipeline=COUNT, virtual_stages=COUNT,
    schedule=st.sampled_from([None, "gpipe", "1f1b", "interleaved"]),
    stage_layers=st.none() | st.lists(st.integers(0, 99), max_size=4).map(tuple),
    context=COUNT, context_kind=st.sampled_from(["ring", "all-to-all"]), expert=COUNT, expert_tensor=COUNT,
    micro_batch=COUNT, global_batch=COUNT, sequence=st.none() | COUNT,
    recompute=st.sampled_from(["none", "selective", "full"]), recompute_every=COUNT,
    cached_layers=st.integers(0, 99),
    precision=st.sampled_from(["fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"]),
    gradient_precision=st.sampled_from([None, "fp32", "bf16", "fp16"]),
    master_precision=st.sampled_from(["fp32", "bf16", "none"]),
    overlap=st.builds(Overlap, *[SWITCH] * 7),
    rank_order=st.permutations(DEFAULT_RANK_ORDER).map(tuple),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(PLANS)
def test_round_trip(plan):
    assert plan_from_mapping(yaml.safe_load(dump_plan(plan))) == plan


@settings(max_examples=50, deadline=None)
@given(PLANS)
def test_a_file_holds_what_differs_from_the_defaults(plan):
    mapping = plan_to_mapping(plan)
    assert mapping["schema"] == 1
    for field in fields(Plan):
        same = getattr(plan, field.name) == getattr(Plan(), field.name)
        assert (field.name in mapping) != same


def test_files_of_the_first_version_load():
    megatron = load_plan(CAPTURES / "v1-megatron.yaml")
    assert megatron == Plan(
        tensor_x=8, sequence_parallel=True, pipeline=8, virtual_stages=2, data=4, zero_stage=1, global_batch=512,
        sequence=4096, recompute="selective", stage_layers=(5,) * 16, overlap=Overlap(tensor=True, pipeline=False),
    )  # fmt: skip
    axonn = load_plan(CAPTURES / "v1-axonn.yaml")
    assert axonn.num_devices == 1024 and axonn.num_micro_batches == 4096 // (2 * 16 * 8)
    assert axonn.gradient_precision == "fp32" and axonn.overlap.backward_all_reduce
    known = {field.name for field in fields(Plan)}
    assert set(yaml.safe_load((CAPTURES / "v1-axonn.yaml").read_text())) <= known


def test_settings_replace_values_of_a_file():
    plan = load_plan(CAPTURES / "v1-megatron.yaml", parse_settings("data=8,overlap.tensor=false"))
    assert plan.data == 8 and plan.tensor_x == 8
    assert plan.overlap == Overlap(tensor=False, pipeline=False)


@pytest.mark.parametrize(
    "text, settings",
    [
        ("", {}),
        ("tensor_x=8", {"tensor_x": 8}),
        (" tensor_x = 8 , data=2", {"tensor_x": 8, "data": 2}),
        ("overlap.pipeline=true,overlap.tensor=false", {"overlap": {"pipeline": True, "tensor": False}}),
        ("stage_layers=[3,3],pipeline=2", {"stage_layers": [3, 3], "pipeline": 2}),
        ("overlap={pipeline: true, tensor: false}", {"overlap": {"pipeline": True, "tensor": False}}),
        ("schedule=1f1b", {"schedule": "1f1b"}),
        ("data_shard=null", {"data_shard": None}),
        ("data=1,", {"data": 1}),
    ],
)
def test_settings(text, settings):
    assert parse_settings(text) == settings


@pytest.mark.parametrize(
    "text, message",
    [
        ("tensor_x", "'tensor_x' is not KEY=VALUE"),
        ("=8", "is not KEY=VALUE"),
        ("data=1,data=2", "data is given twice"),
        ("overlap=true,overlap.tensor=true", "overlap is given both as a value and with parts"),
        ("data=[1", "is not a value"),
    ],
)
def test_wrong_settings(text, message):
    with pytest.raises(PlanError, match=message.replace("[", r"\[")):
        parse_settings(text)


def test_all_faults_of_a_file_at_once():
    with pytest.raises(PlanError) as caught:
        plan_from_mapping({"tensorx": 8, "data": "four", "overlap": {"pipelin": True}, "zero_stage": 1.5})
    text = str(caught.value)
    assert len(caught.value.faults) == 4
    assert "tensorx" in text and "did you mean 'tensor_x'" in text
    assert "overlap.pipelin" in text and "did you mean 'pipeline'?" in text
    assert "data = 'four'" in text and "zero_stage = 1.5" in text


@pytest.mark.parametrize(
    "content, message",
    [
        (b"- 1", "must be a mapping"),
        (b"", "must be a mapping"),
        (b"a: [", "is not YAML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"schema: 2", "schema 2 is not known"),
        (b"data: true", "data = True"),
        (b"data: .nan", "data"),
        (b"sequence: 2026-01-01", "holds something that is no number"),
    ],
)
def test_files_that_are_no_plan(tmp_path, content, message):
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=message) as caught:
        load_plan(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_plan(tmp_path / "nowhere.yaml")


NAMES = st.none() | st.sampled_from(["llama3-8b", "dgx-h100:nodes=64", "my/config.json", "on", "1e3", "a: b"])


@settings(max_examples=50, deadline=None)
@given(PLANS, NAMES, NAMES, NAMES)
def test_a_file_that_names_its_job(tmp_path_factory, plan, model, machine, stack):
    path = tmp_path_factory.mktemp("job") / "plan.yaml"
    path.write_text(dump_plan(plan, model=model, machine=machine, stack=stack))
    found = load_plan_file(path)
    assert (found.plan, found.model, found.machine, found.stack) == (plan, model, machine, stack)
    assert load_plan(path) == plan


def test_the_job_stands_before_the_plan():
    text = dump_plan(Plan(tensor_x=8), model="llama3-8b", machine="alps", stack="axonn")
    assert text == "schema: 1\nmodel: llama3-8b\nmachine: alps\nstack: axonn\ntensor_x: 8\n"
    assert dump_plan(Plan(data=2), machine="alps") == "schema: 1\nmachine: alps\ndata: 2\n"


def test_faults_of_job_and_plan_at_once(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("modle: a\nmachine: 3\nstack: ' '\ndata: two\n")
    with pytest.raises(PlanError) as caught:
        load_plan_file(path)
    assert len(caught.value.faults) == 4
    text = str(caught.value)
    for phrase in (
        "did you mean 'model'?",
        "machine = 3 must be text",
        "stack = ' ' must be text",
        "data = 'two'",
    ):
        assert phrase in text


def test_settings_do_not_name_the_job(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("model: gpt-5b\ndata: 2\n")
    with pytest.raises(PlanError, match="stack is no field of the plan; give --stack"):
        load_plan_file(path, {"stack": "axonn"})
