"""`towtank export` and `towtank import` as a user sees them."""

import json
import os
import subprocess

import pytest
import yaml

JOB = "model: llama3-8b\nmachine: dgx-h100:nodes=8\nstack: megatron-core\n"
PLAN = "tensor_x: 2\nsequence_parallel: true\npipeline: 4\nvirtual_stages: 2\ndata: 8\n"
PLAN = f"{PLAN}zero_stage: 1\nglobal_batch: 64\n"


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(JOB + PLAN)
    return path


def test_print_to_standard_output(towtank, plan_file):
    outcome = towtank("export", str(plan_file), "--to", "megatron")
    assert outcome.code == 0
    assert outcome.out.startswith("#!/usr/bin/env bash\n# llama3-8b on dgx-h100:nodes=8 (64 devices, 8 x 8)")
    assert "--num-layers-per-virtual-pipeline-stage 4\n" in outcome.out
    assert "note: the shape of llama3-8b does not name its activation" in outcome.err


@pytest.mark.parametrize(
    ("target", "name", "beside"),
    [
        ("megatron", "train.sh", []),
        ("torchtitan", "recipe.py", ["recipe.sh"]),
        ("deepspeed", "ds.json", ["ds.sh"]),
        ("megatron-bridge", "recipe.py", ["recipe.sh"]),
        ("slurm", "job.sbatch", []),
    ],
)
def test_files(towtank, plan_file, tmp_path, target, name, beside):
    folder = tmp_path / "out"
    folder.mkdir()
    changes = {
        "torchtitan": "zero_stage=0",
        "deepspeed": "pipeline=1,virtual_stages=1,sequence_parallel=false,data=32",
    }
    outcome = towtank(
        "export", str(plan_file), "--to", target, "-o", str(folder / name), "--set", changes.get(target, "")
    )
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in folder.iterdir()) == sorted([name, *beside])
    assert outcome.out == "".join(f"wrote {folder / file}\n" for file in [name, *beside])
    for script in folder.glob("*.sh"):
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", script], check=True)
    for recipe in folder.glob("*.py"):
        compile(recipe.read_text(), str(recipe), "exec")


def test_the_config_is_found_by_its_name(towtank, plan_file, tmp_path):
    towtank(
        "export",
        str(plan_file),
        "--to",
        "torchtitan",
        "-o",
        str(tmp_path / "mine.py"),
        "--set",
        "zero_stage=0",
    )
    assert "--module mine --config towtank_plan" in (tmp_path / "mine.sh").read_text()


@pytest.mark.parametrize(
    ("framework", "phrase"),
    [
        (None, "pretrain_gpt.py"),
        ("megatron", "--tensor-model-parallel-size 2"),
        ("torchtitan", "-m torchtitan.train --module job"),
        ("megatron-bridge", "job.py"),
    ],
)
def test_slurm(towtank, plan_file, tmp_path, framework, phrase):
    words = [
        "export",
        str(plan_file),
        "--to",
        "slurm",
        "-o",
        str(tmp_path / "job.sbatch"),
        "--set",
        "zero_stage=0",
    ]
    words[-1] = "zero_stage=0" if framework == "torchtitan" else "zero_stage=1"
    outcome = towtank(*words, *(["--framework", framework] if framework else []))
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "job.sbatch").read_text()
    for line in ("#SBATCH --nodes=8", "#SBATCH --ntasks-per-node=8", "srun --nodes=8 --ntasks=64"):
        assert line in text
    assert phrase in text
    assert text.index("#SBATCH --time") < text.index("set -euo pipefail")


def test_json(towtank, plan_file):
    outcome = towtank("export", str(plan_file), "--to", "deepspeed", "--json", "--set",
                      "pipeline=1,virtual_stages=1,sequence_parallel=false,data=32")  # fmt: skip
    document = json.loads(outcome.out)
    assert document["target"] == "deepspeed"
    assert [file["name"] for file in document["files"]] == ["deepspeed.json", "deepspeed.sh"]
    assert json.loads(document["files"][0]["text"])["train_batch_size"] == 64
    assert any("megatron-core" in warning for warning in document["warnings"])


BAD = {
    "target": (["--to", "megatrno"], ["--to megatrno is unknown", "did you mean 'megatron'"]),
    "no target": ([], ["--to"]),
    "framework": (["--to", "slurm", "--framework", "deepsped"], ["did you mean 'deepspeed'"]),
    "framework without Slurm": (["--to", "megatron", "--framework", "megatron"], ["leave it out"]),
    "cannot run": (["--to", "deepspeed"], ["export to deepspeed: 2 faults", "pipeline = 4", "sequence_parallel"]),
    "illegal plan": (["--to", "megatron", "--set", "tensor_x=3"], ["plan: ", "tensor_x = 3"]),
    "machine": (["--to", "megatron", "--machine", "selen"], ["selen", "did you mean"]),
    "folder": (["--to", "megatron", "-o", "no/such/folder/x.sh"], ["cannot be written", "No such file"]),
    "several": (["--to", "x", "--model", "y", "--set", "z"], ["3 inputs are wrong"]),
    "the name in the script": (["--to", "torchtitan", "--set", "zero_stage=0", "-o", "mine.txt"],
                               ["calls it mine.py"]),
    "over the plan": (["--to", "megatron", "-o", "plan.yaml"], ["is the plan itself"]),
    "two files of one name": (["--to", "torchtitan", "--set", "zero_stage=0", "-o", "x.sh"], ["the same name"]),
}  # fmt: skip


@pytest.mark.parametrize(("words", "phrases"), BAD.values(), ids=list(BAD))
def test_bad_export(towtank, plan_file, monkeypatch, tmp_path, words, phrases):
    monkeypatch.chdir(tmp_path)
    outcome = towtank("export", str(plan_file), *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err
    for phrase in phrases:
        assert phrase in outcome.err


def test_a_plan_that_only_the_target_runs_needs_no_stack(towtank, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("model: gpt-20b\nmachine: perlmutter\ntensor_y: 2\ntensor_z: 2\nglobal_batch: 8\n")
    outcome = towtank("export", str(path), "--to", "megatron-axonn")
    assert outcome.code == 0, outcome.err
    assert "--column-tensor-model-parallel-size 2" in outcome.out
    refused = towtank("export", str(path), "--to", "megatron")
    assert refused.code == 2 and "tensor_y = 2" in refused.err
    both = towtank("export", str(path), "--to", "megatron-axonn", "--set", "context=2")
    assert "axonn cannot run context = 2" in both.err and "tensor_y" not in both.err
    named = towtank("export", str(path), "--to", "megatron-axonn", "--stack", "megatron-core")
    assert named.code == 2 and "megatron-core cannot run tensor_y = 2" in named.err


def test_there_and_back(towtank, plan_file, tmp_path):
    script, again = tmp_path / "train.sh", tmp_path / "again.yaml"
    assert towtank("export", str(plan_file), "--to", "megatron", "-o", str(script)).code == 0
    outcome = towtank("import", str(script), "-o", str(again), "--machine", "dgx-h100:nodes=8")
    assert (outcome.code, outcome.out) == (0, f"wrote {again}\n")
    assert "no part of a plan, ignored:\n" in outcome.err and "  --mock-data\n" in outcome.err
    written, read = (yaml.safe_load(path.read_text()) for path in (plan_file, again))
    assert read == {"schema": 1, **written}
    first, second = (towtank("predict", "--plan", str(path), "--json").out for path in (plan_file, again))
    assert first == second


def test_import_prints_the_plan(towtank, tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(
        '{"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 1}, "steps_per_print": 5}'
    )
    outcome = towtank(
        "import", str(path), "--devices", "8", "--set", "recompute=full", "--model", "llama3-8b"
    )
    assert yaml.safe_load(outcome.out) == {
        "schema": 1, "model": "llama3-8b", "stack": "deepspeed", "data": 8, "zero_stage": 1, "micro_batch": 2,
        "global_batch": 16, "recompute": "full", "precision": "fp32", "gradient_precision": "fp32",
    }  # fmt: skip
    assert "  steps_per_print 5" in outcome.err


def test_import_as_json(towtank, tmp_path):
    path = tmp_path / "args.txt"
    path.write_text("--micro-batch-size $M --bf16 --weird 1")
    outcome = towtank(
        "import", str(path), "--json", "--devices", "4", "--define", "M=2", "--stack", "megatron-2021"
    )
    document = json.loads(outcome.out)
    assert (document["source"], document["devices"], document["stack"]) == ("megatron", 4, "megatron-2021")
    assert document["plan"]["global_batch"] == 8
    assert document["ignored"] == ["--weird 1"]


BAD_IMPORT = {
    "source": (["--from", "megatrn"], ["did you mean 'megatron'"]),
    "devices": (["--devices", "0"], ["--devices 0 must be 1 or more"]),
    "definition": (["--define", "1=2"], ["is not NAME=VALUE"]),
    "setting": (["--devices", "1", "--set", "datta=2"], ["unknown key datta"]),
    "model": (["--model", "lama3-8b"], ["llama3-8b"]),
    "machine": (["--devices", "1", "--machine", "dgx-h10"], ["dgx-h10", "did you mean"]),
    "folder": (["--devices", "1", "-o", "no/folder/plan.yaml"], ["cannot be written"]),
    "several": (["--from", "x", "--devices", "0", "--stack", "y"], ["3 inputs are wrong"]),
    "faults of the file": ([], ["args.txt", "how many devices"]),
}


@pytest.mark.parametrize(("words", "phrases"), BAD_IMPORT.values(), ids=list(BAD_IMPORT))
def test_bad_import(towtank, tmp_path, monkeypatch, words, phrases):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "args.txt").write_text("--micro-batch-size 1 --bf16")
    outcome = towtank("import", "args.txt", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err
    for phrase in phrases:
        assert phrase in outcome.err


def test_a_missing_file(towtank, tmp_path):
    outcome = towtank("import", str(tmp_path / "no.sh"))
    assert outcome.code == 2 and "cannot be read: No such file" in outcome.err


def test_a_plan_of_another_stack_is_told_how_to_get_one_for_the_target(towtank, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        "model: llama3-8b\nmachine: dgx-h100:nodes=2\nstack: any\ntensor_x: 2\ndata: 4\npipeline: 2\n"
        "zero_stage: 2\nglobal_batch: 16\n"
    )
    done = towtank("export", str(path), "--to", "megatron")
    assert done.code == 2 and "zero_stage = 2" in done.err
    assert "towtank tune --stack megatron-core" in done.err


def test_a_plan_that_the_release_cannot_run_is_told_how_to_leave_such_plans_out(towtank, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        "model: llama3-8b\nmachine: dgx-h100:nodes=2\nstack: torchtitan\ndata: 16\nzero_stage: 3\n"
        "master_precision: bf16\nglobal_batch: 16\n"
    )
    done = towtank("export", str(path), "--to", "torchtitan")
    assert done.code == 2 and "master_precision = bf16: torchtitan keeps fp32" in done.err
    assert "as --fix FIELD=VALUE, and it leaves such plans out" in done.err


def test_a_plan_file_needs_no_import(towtank, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("schema: 1\nmodel: llama3-8b\ndata: 16\nglobal_batch: 16\n")
    done = towtank("import", str(path))
    assert done.code == 2
    assert "is a plan file of towtank; use it as it is" in done.err
