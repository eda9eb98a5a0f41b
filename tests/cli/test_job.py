"""A plan file that names model, machine and stack: options come first, faults come at once."""

import json

import pytest

PLAN = "tensor_x: 2\npipeline: 2\ndata: 2\nglobal_batch: 16\nrecompute: full\nprecision: fp16\n"
JOB = "model: gpt-5b\nmachine: selene\nstack: megatron-2021\n"
OPTIONS = ["--model", "gpt-5b", "--machine", "selene", "--stack", "megatron-2021"]


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(JOB + PLAN)
    return path


def _predicted(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_a_plan_file_is_enough(towtank, plan_file, small_job):
    named = _predicted(towtank("predict", "--plan", str(plan_file), "--json"))
    assert named == _predicted(towtank(*small_job, "--json"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("model", "gpt-10b"), ("machine", "dgx-a100:nodes=1"), ("stack", "megatron-deepspeed")],
)
def test_an_option_comes_before_the_file(towtank, plan_file, tmp_path, option, value):
    bare = tmp_path / "bare.yaml"
    bare.write_text(PLAN)
    options = [*OPTIONS]
    options[options.index(f"--{option}") + 1] = value
    overridden = _predicted(towtank("predict", "--plan", str(plan_file), f"--{option}", value, "--json"))
    assert overridden == _predicted(towtank("predict", "--plan", str(bare), *options, "--json"))
    assert overridden != _predicted(towtank("predict", "--plan", str(plan_file), "--json"))


def test_the_stack_has_a_default(towtank, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(f"model: gpt-5b\nmachine: selene\n{PLAN}")
    default = _predicted(towtank("predict", "--plan", str(path), "--json"))
    assert default == _predicted(
        towtank("predict", "--plan", str(path), "--stack", "megatron-core", "--json")
    )


MINE = "hidden: 256\nnum_layers: 2\nvocab: 1000\nsequence: 128\nattention: {heads: 4, kv_heads: 4, head_dim: 64}\n"
MINE += "mlp: {hidden: 1024, gated: false}\nnorm: layernorm\nnorm_bias: true\npositions: rope\n"
MINE += "max_positions: 0\ntied_embeddings: true\n"


def test_a_model_file_beside_the_plan(towtank, tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "jobs", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "mine.yaml").write_text(MINE)
    (folder / "plan.yaml").write_text("model: mine.yaml\nmachine: selene\ndata: 2\nglobal_batch: 4\n")
    monkeypatch.chdir(elsewhere)
    found = _predicted(towtank("predict", "--plan", "../jobs/plan.yaml", "--json"))
    (elsewhere / "mine.yaml").write_text(MINE.replace("num_layers: 2", "num_layers: 4"))
    nearer = _predicted(towtank("predict", "--plan", "../jobs/plan.yaml", "--json"))
    assert nearer["step_time_s"] > found["step_time_s"]


def test_neither_option_nor_file(towtank, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    outcome = towtank("predict", "--plan", str(path))
    assert (outcome.code, outcome.out) == (2, "")
    for phrase in (
        "2 inputs are wrong",
        "--model NAME",
        "`model: NAME`",
        "--machine NAME",
        "`machine: NAME`",
    ):
        assert phrase in outcome.err


def test_faults_of_names_and_plan_at_once(towtank, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("model: gpt5b\nmachine: [selene]\nstack: axon\ndatta: 2\n")
    outcome = towtank("predict", "--plan", str(path))
    assert outcome.code == 2
    for phrase in ("'gpt5b'", "machine = ['selene'] must be text", "'axon'", "did you mean 'data'"):
        assert phrase in outcome.err
    assert "no machine is given" not in outcome.err


def test_an_unreadable_file_is_the_only_fault(towtank, tmp_path):
    outcome = towtank("predict", "--plan", str(tmp_path / "nowhere.yaml"))
    assert outcome.code == 2
    assert outcome.err == f"towtank: {tmp_path / 'nowhere.yaml'}: cannot be read: No such file or directory\n"
