"""Whatever a user gets wrong: exit code 2, one message that says what is wrong and what to do, no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GPT = {
    "model": "gpt-5b",
    "machine": "selene",
    "stack": "megatron-2021",
    "settings": "global_batch=16,precision=fp16",
}
LLAMA = {
    "model": "llama3-8b",
    "machine": "dgx-h100:nodes=8",
    "stack": "megatron-core",
    "settings": "global_batch=64",
}
MIXTRAL = LLAMA | {"model": "mixtral-8x7b"}
HERE = Path(__file__).parent
CONFIG = json.loads((HERE.parent / "captures" / "hf_configs" / "llama-3.1-8b" / "config.json").read_text())


def _arguments(job: dict[str, str], **changes: str) -> list[str]:
    job = job | changes
    argv = ["predict", "--model", job["model"], "--machine", job["machine"], "--stack", job["stack"]]
    return [*argv, "--set", job["settings"]]


def _set(job: dict[str, str], more: str) -> list[str]:
    return _arguments(job, settings=f"{job['settings']},{more}")


def _wrong(outcome, *phrases: str) -> list[str]:
    """What is wrong with an outcome that must be exit code 2 and one message with some phrases."""
    found = [f"{phrase!r} is not in {outcome.err}" for phrase in phrases if phrase not in outcome.err]
    if (outcome.code, outcome.out) != (2, ""):
        found.append(f"exit code {outcome.code}, printed {outcome.out!r}")
    if not outcome.err.startswith("towtank: ") or outcome.err.count("towtank: ") != 1:
        found.append(f"not one message: {outcome.err}")
    if "Traceback" in outcome.err:
        found.append("a traceback")
    return found


NAMES = {
    "unknown model": (_arguments(GPT, model="lama3-8b"), ["lama3-8b", "llama3-8b"]),
    "unknown machine": (_arguments(GPT, machine="selen"), ["selen", "did you mean 'selene'"]),
    "unknown stack": (
        _arguments(GPT, stack="megatron-cor"),
        ["megatron-cor", "did you mean 'megatron-core'"],
    ),
    "unknown engine": ([*_arguments(GPT), "--engine", "simpi"], ["--engine simpi", "did you mean 'simpy'"]),
    "unknown breakdown": (
        [*_arguments(GPT), "--breakdown", "layer"],
        ["--breakdown layer", "layers, operations"],
    ),
    "unknown option": ([*_arguments(GPT), "--modle", "x"], ["--modle", "towtank predict --help"]),
    "unknown command": (["predcit"], ["predcit", "towtank --help"]),
    "no model": (["predict", "--machine", "selene", "--set", "data=1"], ["--model"]),
    "no plan": (["predict", "--model", "gpt-5b", "--machine", "selene"], ["no plan", "--plan FILE", "--set"]),
    "empty settings": (["predict", "--model", "gpt-5b", "--machine", "selene", "--set", ""], ["no plan"]),
    "devices not a number": ([*_arguments(GPT), "--devices", "many"], ["--devices", "integer"]),
    "extra argument": ([*_arguments(GPT), "plan.yaml"], ["plan.yaml"]),
    "machine option": (_arguments(LLAMA, machine="dgx-h100:node=8"), ["node=8", "did you mean 'nodes'"]),
    "no nodes": (
        _arguments(LLAMA, machine="dgx-h100:nodes=0"),
        ["nodes= must be a whole number from 1", "'0'"],
    ),
    "part of a node": (
        _arguments(LLAMA, machine="dgx-h100:devices=12"),
        ["multiple of the 8", "take 8 or 16"],
    ),
    "nodes not a number": (_arguments(LLAMA, machine="dgx-h100:nodes=x"), ["nodes=", "'x'"]),
    "size given twice": (
        _arguments(LLAMA, machine="dgx-h100:nodes=2:devices=16"),
        ["nodes and devices both"],
    ),
    "more nodes than there are": (_arguments(GPT, machine="selene:nodes=9999"), ["9999 nodes", "560"]),
    "unknown device": (_arguments(LLAMA, machine="dgx-h100:nodes=8:device=h100"), ["'h100'", "did you mean"]),
    "profile folder": (
        [*_arguments(GPT), "--profiles", "no-such-folder"],
        ["no-such-folder", "does not exist"],
    ),
    "machine to show": (["machines", "show", "perlmuter"], ["perlmuter", "perlmutter"]),
    "device to show": (["devices", "show", "h100-80gb-smx"], ["h100-80gb-sxm"]),
    "model to show": (["models", "show", "gpt5b"], ["gpt5b", "gpt-5b"]),
    "stack to show": (["stacks", "show", "axon"], ["axon", "did you mean 'axonn'"]),
    "config key of a zoo model": (
        [*_arguments(GPT), "--ignore-config-key", "foo"],
        ["--ignore-config-key", "config.json", "gpt-5b"],
    ),
    "unknown placement": (
        [*_arguments(GPT), "--placement", "scatered:0.3", "--background", "globl=2,local=x"],
        ["2 inputs are wrong", "did you mean 'scattered'", "did you mean 'global'", "'local=x' is no share"],
    ),
    "no fill": ([*_arguments(GPT), "--placement", "scattered"], ["like scattered:0.6"]),
    "machine too full": (
        [
            *_arguments(GPT, settings="data=16,global_batch=16,precision=fp16"),
            "--placement",
            "scattered:0.999",
        ],
        ["needs 2 nodes, but 1 of 560 are free", "take a lower fill"],
    ),
    "taper": (_arguments(LLAMA, machine="alps:taper=2"), ["taper=", "above 0 and at most 1", "'2'"]),
    "taper without groups": (
        _arguments(LLAMA, machine="polaris:taper=0.5"),
        ["network.group_nodes is unknown"],
    ),
    "unknown taper": (
        [*_arguments(LLAMA, machine="alps", settings="data=512,global_batch=512"), "--engine", "flows"],
        ["network.taper", "is unknown", "alps:taper=0.5"],
    ),
    "model file missing": (_arguments(GPT, model="no/such/config.json"), ["no/such/config.json"]),
}


PLANS = {
    "unknown key": (_set(GPT, "tensor=2"), ["unknown key tensor", "did you mean 'tensor_"]),
    "unknown switch": (_set(GPT, "overlap.pipelin=true"), ["overlap.pipelin", "pipeline"]),
    "wrong type": (_set(GPT, "data=two"), ["data", "'two'", "integer"]),
    "fraction": (_set(GPT, "data=1.5"), ["data", "1.5", "integer"]),
    "wrong switch": (_set(GPT, "sequence_parallel=1"), ["sequence_parallel", "boolean"]),
    "not key=value": (_set(GPT, "tensor_x"), ["'tensor_x' is not KEY=VALUE"]),
    "key twice": (_set(GPT, "data=1,data=2"), ["data is given twice"]),
    "zero degree": (_set(GPT, "tensor_x=0"), ["tensor_x = 0", "1 or more"]),
    "negative degree": (_set(GPT, "pipeline=-2"), ["pipeline = -2", "1 or more"]),
    "product is not devices": (
        [*_set(GPT, "tensor_x=2,data=4"), "--devices", "16"],
        ["= 8, but 16 devices were asked", "set data = 8"],
    ),
    "no devices": ([*_arguments(GPT), "--devices", "0"], ["devices = 0", "1 or more"]),
    "more devices than the machine": (
        _arguments(GPT, machine="selene:nodes=1", settings="data=16,global_batch=16,precision=fp16"),
        ["= 16 devices, but selene has 8"],
    ),
    "batch not divisible": (_set(GPT, "data=3"), ["global_batch = 16", "multiple of", "set global_batch = 15"]),
    "heads not divisible": (_set(GPT, "tensor_x=3"), ["attention heads = 32", "tensor_x = 3"]),
    "key-value heads": (_arguments(LLAMA | {"model": "qwen2.5-7b"}, settings="tensor_x=7,global_batch=64"),
                        ["key-value heads = 4", "tensor_x = 7"]),
    "hidden size": (_arguments(LLAMA, stack="axonn", settings="tensor_y=3,global_batch=64"),
                    ["hidden size = 4096", "tensor_y = 3"]),
    "sequence over context": (_set(LLAMA, "context=3,sequence=8192"), ["sequence = 8192", "multiple of 6"]),
    "sequence over tensor group": (
        _set(GPT, "tensor_x=2,sequence=1001,sequence_parallel=true"), ["sequence_parallel: 1001", "tensor_x = 2"]
    ),
    "learned positions": (_set(GPT, "sequence=4096"), ["sequence = 4096", "learned table of 2048"]),
    "no sequence": (_set(GPT, "sequence=0"), ["sequence = 0"]),
    "experts of a dense model": (_set(LLAMA, "expert=8,data=8"), ["expert = 8", "no experts"]),
    "expert degree": (_set(MIXTRAL, "expert=3,data=1"), ["number of experts = 8", "expert = 3"]),
    "expert group": (_set(MIXTRAL, "expert=8,data=4"), ["expert 8", "must divide the 4 devices"]),
    "experts need sequence parallelism": (
        _set(MIXTRAL, "expert=8,tensor_x=2,data=8"), ["needs sequence_parallel"]
    ),
    "heads over all-to-all": (
        _arguments(LLAMA, stack="deepspeed", settings="context=64,context_kind=all-to-all,global_batch=64"),
        ["context = 64", "32 heads", "context_kind = ring"],
    ),
    "zero stage 4": (_set(LLAMA, "zero_stage=4"), ["zero_stage = 4", "0, 1, 2 or 3"]),
    "shards of data": (_set(LLAMA, "data=8,zero_stage=1,data_shard=3"), ["data_shard = 3", "divide data = 8"]),
    "shards of nothing": (_set(LLAMA, "data=8,data_shard=4"), ["data_shard = 4", "set zero_stage"]),
    "recompute every": (_set(GPT, "recompute_every=2"), ["recompute_every = 2", "recompute = full"]),
    "length of stage_layers": (_set(LLAMA, "pipeline=2,stage_layers=[32]"), ["stage_layers has 1", "2 chunks"]),
    "sum of stage_layers": (_set(LLAMA, "pipeline=2,stage_layers=[10,10]"), ["32 layers", "adds up to 20"]),
    "uneven stages": (_set(GPT, "pipeline=5"), ["24 layers on 5 chunks", "divides 24"]),
    "more stages than layers": (_set(GPT, "pipeline=48"), ["24 layers", "pipeline = 48"]),
    "interleaved micro-batches": (_set(GPT, "pipeline=3,virtual_stages=2"), ["16 % 3", "15 or 18"]),
    "interleaved without pipeline": (_set(GPT, "virtual_stages=2"), ["interleaved", "2 stages"]),
    "unknown schedule": (_set(GPT, "pipeline=2,schedule=zero-bubble"), ["schedule", "zero-bubble", "1f1b"]),
    "precision of the device": (_arguments(GPT, settings="global_batch=16,precision=fp8"), ["fp8", "a100-80gb-sxm"]),
    "unknown precision": (_arguments(GPT, settings="global_batch=16,precision=int8"), ["precision", "int8", "bf16"]),
    "stack without y": (_set(GPT, "tensor_y=2"), ["megatron-2021 cannot run tensor_y = 2"]),
    "stack without z": (_set(LLAMA, "tensor_z=2"), ["megatron-core cannot run tensor_z = 2", "zero_stage"]),
    "stack without context": (_set(GPT, "context=2"), ["megatron-2021 cannot run context = 2"]),
    "stack without ZeRO": (_set(GPT, "data=2,zero_stage=1"), ["megatron-2021 cannot run zero_stage = 1"]),
    "ZeRO with a pipeline": (
        _arguments(LLAMA, stack="megatron-deepspeed", settings="pipeline=2,data=2,zero_stage=2,global_batch=64"),
        ["zero_stage = 2 with a pipeline"],
    ),
    "stack without overlap": (_set(GPT, "overlap.all_gather=true"), ["megatron-2021 cannot run overlap.all_gather"]),
    "rank order": (_set(GPT, "rank_order=[data,pipeline]"), ["rank_order must name each of", "once"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "phrases"), NAMES.values(), ids=list(NAMES))
def test_wrong_name_or_option(towtank, arguments, phrases) -> None:
    assert _wrong(towtank(*arguments), *phrases) == []


@pytest.mark.parametrize(("arguments", "phrases"), PLANS.values(), ids=list(PLANS))
def test_wrong_plan(towtank, arguments, phrases) -> None:
    assert _wrong(towtank(*arguments), *phrases) == []


PLAN_FILES = {
    "missing": (None, ["cannot be read", "No such file"]),
    "empty": (b"", ["must be a mapping"]),
    "a list": (b"- 1\n", ["must be a mapping"]),
    "broken YAML": (b"data: [1, 2\n", ["is not YAML"]),
    "no day": (b"sequence: 2024-13-01\n", ["is not YAML", "2024-13-01 is no value"]),
    "no number": (b"data: 0x_\n", ["0x_ is no value"]),
    "a list as key": (b"? [data]\n: 1\n", ["is not YAML", "unhashable key"]),
    "depth": (b"[" * 20_000, ["plan.yaml"]),
    "not UTF-8": (b"data: 1 # \xff\n", ["byte 10 is not UTF-8"]),
    "key twice": (b"data: 1\ndata: 2\n", ["data", "twice"]),
    "newer schema": (b"schema: 99\n", ["schema 99 is not known"]),
    "unknown keys, all at once": (b"datta: 2\npipelin: 3\n", ["2 faults", "mean 'data'", "mean 'pipeline'"]),
    "a list inside itself": (b"data: &a [*a]\n", ["no number, text"]),
    "a date": (b"data: 2024-01-01\n", ["no number, text"]),
    "not a number": (b"data: .nan\n", ["data"]),
}  # fmt: skip


@pytest.mark.parametrize(("content", "phrases"), PLAN_FILES.values(), ids=list(PLAN_FILES))
def test_wrong_plan_file(towtank, tmp_path, content, phrases) -> None:
    path = tmp_path / "plan.yaml"
    if content is not None:
        path.write_bytes(content)
    arguments = ["predict", "--model", "gpt-5b", "--machine", "selene", "--plan", str(path)]
    assert _wrong(towtank(*arguments), str(path), *phrases) == []


def _machine(**replaced: str) -> bytes:
    text = {
        "name": "name: mine\ndescription: mine\n",
        "from": "from: selene\n",
        "sources": "sources:\n  me: {text: my own measurement, provenance: measurement}\n",
        "figure": "",
    }
    return "".join((text | replaced).values()).encode()


MACHINES = {
    "unit missing": (_machine(figure="system_power: {value: '3', source: me}\n"), ["system_power", "no unit"]),
    "bare number": (_machine(figure="system_power: {value: 3, source: me}\n"), ["system_power", "text with a unit"]),
    "wrong unit": (_machine(figure="system_power: {value: 3 GB/s, source: me}\n"), ["watts", "needed"]),
    "source missing": (_machine(figure="system_power: {value: 3 MW}\n"), ["system_power", "source"]),
    "source not listed": (_machine(figure="system_power: {value: 3 MW, source: you}\n"), ["you", "source"]),
    "provenance": (_machine(sources="sources:\n  me: {text: x, provenance: guess}\n"), ["provenance", "guess"]),
    "unknown key": (_machine(figure="sistem_power: unknown\n"), ["sistem_power", "did you mean 'system_power'"]),
    "from in a circle": (_machine(**{"from": "from: other\n"}), ["mine", "other"]),
    "from unknown": (_machine(**{"from": "from: selen\n"}), ["selen", "did you mean 'selene'"]),
    "key twice": (_machine(figure="site: a\nsite: b\n"), ["'site' stands twice"]),
    "empty": (b"", ["empty"]),
    "broken YAML": (b"name: [mine\n", ["not valid YAML", "line"]),
    "not UTF-8": (b"name: mine # \xff\n", ["not UTF-8"]),
    "another name": (_machine(name="name: yours\ndescription: yours\n"), ["'mine'", "'yours'"]),
}  # fmt: skip


@pytest.mark.parametrize(("content", "phrases"), MACHINES.values(), ids=list(MACHINES))
def test_wrong_machine_file(towtank, tmp_path, content, phrases) -> None:
    folder = tmp_path / "machines"
    folder.mkdir()
    (folder / "mine.yaml").write_bytes(content)
    (folder / "other.yaml").write_bytes(
        _machine(name="name: other\ndescription: other\n", **{"from": "from: mine\n"})
    )
    assert _wrong(towtank(*_arguments(GPT, machine="mine"), "--profiles", str(tmp_path)), *phrases) == []


def test_unknown_figure_that_the_prediction_needs(towtank, tmp_path) -> None:
    (tmp_path / "machines").mkdir()
    content = _machine(figure="node: {injection: unknown}\n")
    (tmp_path / "machines" / "mine.yaml").write_bytes(content)
    arguments = [*_arguments(GPT, machine="mine", settings="data=16,global_batch=16,precision=fp16")]
    found = _wrong(
        towtank(*arguments, "--profiles", str(tmp_path)),
        "mine",
        "injection is unknown",
        "private profile",
    )
    assert found == []


CONFIGS = {
    "not JSON": (b"{", ["not a readable JSON file"]),
    "a list": (b"[]", ["JSON object"]),
    "unknown architecture": (CONFIG | {"architectures": ["LamaForCausalLM"]}, ["LamaFor", "LlamaForCausalLM"]),
    "no architecture": ({"hidden_size": 1}, ["architectures"]),
    "unknown key": (CONFIG | {"extra_layers": 3}, ["extra_layers"]),
    "missing key": ({key: value for key, value in CONFIG.items() if key != "hidden_size"}, ["hidden_size"]),
    "text for a number": (CONFIG | {"hidden_size": "big"}, ["hidden"]),
}  # fmt: skip


@pytest.mark.parametrize(("content", "phrases"), CONFIGS.values(), ids=list(CONFIGS))
def test_wrong_config_json(towtank, tmp_path, content, phrases) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    assert _wrong(towtank(*_arguments(LLAMA, model=str(path))), str(path), *phrases) == []


def test_ignored_config_key_is_accepted(towtank, tmp_path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG | {"extra_layers": 3}))
    arguments = _arguments(LLAMA, model=str(path), settings="data=8,sequence=8192,global_batch=64")
    assert towtank(*arguments, "--ignore-config-key", "extra_layers").code == 0


MODELS = {
    "missing keys": (b"hidden: 64\n", ["missing key num_layers"]),
    "unknown key": (b"hiden: 64\n", ["unknown key hiden", "hidden"]),
    "a list": (b"- 1\n", ["mapping"]),
    "broken YAML": (b"hidden: [\n", ["not YAML"]),
}


@pytest.mark.parametrize(("content", "phrases"), MODELS.values(), ids=list(MODELS))
def test_wrong_model_file(towtank, tmp_path, content, phrases) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert _wrong(towtank(*_arguments(LLAMA, model=str(path))), str(path), *phrases) == []


STACKS = {
    "unknown key": (b"from: axonn\nkernals: {}\n", ["kernals", "did you mean 'kernels'"]),
    "bare number": (b"from: axonn\nlaunch_overhead: 3\n", ["launch_overhead", "text with a unit"]),
    "from unknown": (b"from: axon\n", ["axon", "did you mean 'axonn'"]),
    "broken YAML": (b"from: [\n", ["cannot be read as YAML"]),
}


@pytest.mark.parametrize(("content", "phrases"), STACKS.values(), ids=list(STACKS))
def test_wrong_stack_file(towtank, tmp_path, content, phrases) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert _wrong(towtank(*_arguments(LLAMA, stack=str(path))), *phrases) == []


def test_all_wrong_inputs_are_told_at_once(towtank) -> None:
    arguments = _arguments(
        GPT, model="lama3-8b", machine="selen", stack="axon", settings="tensor=2,pipelin=2"
    )
    outcome = towtank(*arguments, "--engine", "fast")
    found = _wrong(
        outcome,
        "5 inputs are wrong",
        "llama3-8b",
        "'selene'",
        "axonn",
        "tensor_x",
        "pipeline",
        "compiled",
    )
    assert found == []


def test_all_broken_rules_are_told_at_once(towtank) -> None:
    outcome = towtank(*_set(GPT, "tensor_x=3,tensor_y=2,data=5,zero_stage=4"))
    found = _wrong(outcome, "attention heads = 32", "tensor_y = 2", "global_batch = 16", "zero_stage = 4")
    assert found == []


def test_trace_that_cannot_be_written(towtank, small_job, tmp_path) -> None:
    found = _wrong(
        towtank(*small_job, "--trace", str(tmp_path / "no" / "folder.json")),
        "--trace",
        "cannot be written",
    )
    assert found == []
    assert _wrong(towtank(*small_job, "--json", "--trace", str(tmp_path)), "--trace", "directory") == []


def _process(*arguments: str, **more) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "towtank.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_a_process_says_the_same() -> None:
    done = _process("predict", "--model", "gpt-5b", "--machine", "selen", "--set", "data=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("towtank: no machine is named 'selen'")


def test_reader_that_leaves_ends_the_process_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "towtank.cli", "stacks"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_the_shell_has_closed(closed: str) -> None:
    command = f"{sys.executable} -m towtank.cli stacks {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = subprocess.run(["sh", "-c", f"{command} --no"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stdout == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_message() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "towtank.cli", "stacks"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "towtank: standard output: cannot be written: No space left on device\n"


def test_what_a_file_system_says_of_a_place_is_no_fault_of_towtank(towtank, small_job, monkeypatch) -> None:
    from towtank.simulator import predict

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "figures.csv")

    monkeypatch.setattr(predict, "predict", refused)
    assert _wrong(towtank(*small_job), "figures.csv: Permission denied") == []


def test_terminal_without_unicode_gets_plain_bars(small_job) -> None:
    done = _process(*small_job, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "####" in done.stdout


def test_interrupt_and_internal_faults(towtank, small_job, monkeypatch) -> None:
    from towtank.simulator import predict

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("seventeen")

    monkeypatch.setattr(predict, "predict", interrupted)
    done = towtank(*small_job)
    assert done.code == 130 and "towtank: interrupted" in done.err
    monkeypatch.setattr(predict, "predict", broken)
    outcome = towtank(*small_job)
    assert outcome.code == 1
    assert "Traceback" in outcome.err and "ZeroDivisionError: seventeen" in outcome.err
    assert "a fault of towtank, not of your input" in outcome.err
