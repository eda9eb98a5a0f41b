"""The parsers of the targets take what is exported for them. Runs in the environment of `make exports`."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import target_parsers

from towtank.autotune.export.records import Job
from towtank.autotune.export.targets import export
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.load import load_stack

pytestmark = [pytest.mark.exports, pytest.mark.filterwarnings("ignore")]  # warnings are the targets'
CAPTURES = Path(__file__).parents[1] / "captures" / "targets"
GRID = {"tensor_x": 8, "sequence_parallel": True}

PLANS = {
    "dense": ("llama3-8b", {"tensor_x": 2, "sequence_parallel": True, "data": 8, "global_batch": 32}),
    "FSDP": ("llama3-8b", {"data": 64, "zero_stage": 3, "global_batch": 64, "recompute": "selective"}),
    "HSDP": ("llama3-70b", {"data": 64, "zero_stage": 3, "data_shard": 8, "global_batch": 64, "recompute": "full"}),
    "z": ("llama3-8b", {"tensor_z": 8, "data": 4, "global_batch": 32}),
    "long context": ("llama3.1-405b", {**GRID, "context": 16, "pipeline": 7, "data": 2, "zero_stage": 1,
                                       "global_batch": 28, "sequence": 131072, "recompute": "full"}),
    "FSDP over context": ("llama3-70b", {**GRID, "context": 4, "data": 4, "zero_stage": 3, "global_batch": 8}),
    "uneven": ("llama3.1-405b", {**GRID, "pipeline": 16, "data": 4, "global_batch": 64}),
    "interleaved": ("llama3.1-405b", {**GRID, "pipeline": 9, "virtual_stages": 7, "data": 2, "global_batch": 36}),
    "uneven, interleaved": ("llama3-8b", {"pipeline": 4, "virtual_stages": 2,
                                          "stage_layers": (3, 4, 4, 4, 4, 4, 4, 5), "data": 2, "global_batch": 16}),
    "some layers recomputed": ("llama3-8b", {"pipeline": 2, "data": 4, "recompute": "full", "recompute_every": 4,
                                             "global_batch": 16}),
    "fp8": ("llama3-70b", {**GRID, "pipeline": 4, "data": 2, "zero_stage": 1, "precision": "fp8",
                           "global_batch": 16}),
    "mxfp8": ("llama3-70b", {**GRID, "pipeline": 4, "data": 2, "precision": "mxfp8", "global_batch": 16}),
    "nvfp4": ("llama3-70b", {**GRID, "data": 2, "precision": "nvfp4", "global_batch": 16}),
    "experts": ("mixtral-8x7b", {"tensor_x": 2, "sequence_parallel": True, "expert": 8, "data": 16, "zero_stage": 1,
                                 "global_batch": 64}),
    "split experts": ("mixtral-8x22b", {**GRID, "expert": 4, "expert_tensor": 2, "data": 4, "global_batch": 8}),
    "experts, overlapped": ("qwen3-30b-a3b", {"expert": 8, "data": 16, "pipeline": 4, "virtual_stages": 2,
                                              "global_batch": 64, "overlap": Overlap(expert=True)}),
    "experts, FSDP": ("qwen3-30b-a3b", {"expert": 8, "data": 64, "zero_stage": 3, "global_batch": 64}),
    "latent attention": ("deepseek-v3", {"expert": 64, "pipeline": 16, "data": 64, "zero_stage": 1,
                                         "global_batch": 1024, "precision": "fp8", "recompute": "selective"}),
    "windows and sinks": ("gpt-oss-120b", {"expert": 16, "data": 64, "zero_stage": 1, "global_batch": 64}),
    "learned positions": ("gpt3-175b", {**GRID, "pipeline": 8, "data": 2, "precision": "fp16", "global_batch": 32}),
    "a Llama of its own": ("llama2-70b", {**GRID, "pipeline": 2, "data": 2, "global_batch": 8}),
    "biases of queries": ("qwen2.5-72b", {**GRID, "pipeline": 4, "data": 2, "global_batch": 16}),
}  # fmt: skip
NO_TORCHTITAN = {
    "long context": "zero_stage = 1", "experts": "no Mixtral", "split experts": "no Mixtral",
    "windows and sinks": "zero_stage = 1", "latent attention": "zero_stage = 1", "learned positions": "no GPT-3",
    "biases of queries": "no Qwen2.5", "experts, overlapped": "overlap.expert",
    "fp8": "needs a device", "mxfp8": "needs a device", "nvfp4": "needs a device",
}  # fmt: skip
DEEPSPEED = ("FSDP", "z", "experts, FSDP", "windows and sinks")


def _job(name: str, **more: object) -> Job:
    model, fields = PLANS[name]
    stack = "axonn" if "tensor_z" in fields else "megatron-core"
    machine = "dgx-b200:nodes=512"
    if name == "FSDP" and more.get("whole"):
        fields = {**fields, "recompute": "none"}
    if name == "z" and more.get("whole"):
        fields = {"tensor_z": 32, "global_batch": 32}
    return Job(load_model(model), load_machine(machine), Plan(**fields), load_stack(stack), machine)


def _written(job: Job, target: str, folder: Path) -> list[Path]:
    files = export(job, target, stem="made").files
    for file in files:
        (folder / file.name).write_text(file.text)
    return [folder / file.name for file in files]


@pytest.mark.parametrize("name", PLANS)
def test_megatron(name, tmp_path, monkeypatch):
    job = _job(name)
    (script,) = _written(job, "megatron", tmp_path)
    arguments, config = target_parsers.megatron_config(script, monkeypatch)
    plan = job.plan
    assert arguments.data_parallel_size == plan.data * plan.tensor_z
    assert (arguments.virtual_pipeline_model_parallel_size or 1) == plan.virtual_stages
    assert (
        arguments.global_batch_size
        == plan.num_micro_batches * arguments.micro_batch_size * plan.data * plan.tensor_z
    )
    assert config.num_layers == job.model.num_layers
    assert config.expert_tensor_parallel_size == plan.expert_tensor or job.model.experts is None
    assert config.sequence_parallel == (plan.sequence_parallel and plan.tensor_x > 1)
    kv_heads = getattr(job.model.attention, "kv_heads", None)
    assert kv_heads is None or config.num_query_groups == kv_heads


@pytest.mark.parametrize("name", [name for name in PLANS if name not in NO_TORCHTITAN])
def test_torchtitan(name, tmp_path, monkeypatch):
    from torchtitan.config.manager import ConfigManager
    from torchtitan.distributed.parallel_dims import ParallelDims

    job = _job(name)
    plan = job.plan
    _written(job, "torchtitan", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    sys.modules.pop("made", None)
    config = ConfigManager().parse_args(["--module", "made", "--config", "towtank_plan"])
    type(config).__post_init__(config)
    dims = ParallelDims.from_config(config.parallelism, plan.num_devices)
    data = dims.dp_replicate * dims.dp_shard
    assert (dims.tp, dims.pp, dims.cp, dims.ep) == (plan.tensor_x, plan.pipeline, plan.context, plan.expert)
    assert data == plan.data * plan.tensor_z
    steps = config.training.global_batch_size // (config.training.local_batch_size * data)
    passes = config.training.local_batch_size // plan.micro_batch
    assert steps * passes == plan.num_micro_batches
    parts = config.parallelism.module_fqns_per_model_part
    if plan.pipeline > 1:
        assert len(parts) == plan.pipeline * plan.virtual_stages
        assert sum(name.startswith("layers.") for part in parts for name in part) == job.model.num_layers
    shape = config.model_spec.model
    assert (len(shape.layers), shape.dim, shape.vocab_size) == (
        job.model.num_layers,
        job.model.hidden,
        job.model.vocab,
    )
    assert shape.layers[0].attention.n_heads == job.model.attention.heads


def test_torchtitan_checkpoints_the_layers_of_the_plan(tmp_path, monkeypatch):
    """Of a model of eight layers, by torchtitan's own policy of the recipe's configuration."""
    import torch
    from torchtitan.config.manager import ConfigManager
    from torchtitan.distributed.activation_checkpoint import FullAC

    monkeypatch.setattr(FullAC, "_wrap_block", FullAC._wrap_block)  # the recipe replaces it
    _written(_job("some layers recomputed"), "torchtitan", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    sys.modules.pop("made", None)
    config = ConfigManager().parse_args(["--module", "made", "--config", "towtank_plan"])
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleDict({str(number): torch.nn.Linear(1, 1) for number in range(8)})
    config.activation_checkpoint.build().apply(model)
    again = [name for name, layer in model.layers.items() if not isinstance(layer, torch.nn.Linear)]
    assert again == ["0", "4"]


@pytest.mark.parametrize("name", DEEPSPEED)
def test_deepspeed(name, tmp_path, monkeypatch):
    from deepspeed import comm
    from deepspeed.runtime.config import DeepSpeedConfig

    job = _job(name, whole=True)
    document = json.loads(_written(job, "deepspeed", tmp_path)[0].read_text())
    monkeypatch.setattr(comm, "get_rank", lambda *_, **__: 0)

    class Grid:
        def get_data_parallel_world_size(self) -> int:
            return job.plan.num_devices // job.plan.tensor_x // job.plan.context

    config = DeepSpeedConfig(document, mpu=Grid())
    assert config.train_batch_size == job.plan.global_batch
    assert config.gradient_accumulation_steps == job.plan.num_micro_batches
    assert config.zero_optimization_stage == (3 if job.plan.tensor_z > 1 else job.plan.zero_stage)
    assert config.expert_parallel_config.autoep_size == job.plan.expert


@pytest.mark.parametrize("target", target_parsers.OPTIONS)
def test_recorded_options_are_those_installed(target):
    lines = (CAPTURES / f"{target}.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == target_parsers.OPTIONS[target]()


@pytest.mark.parametrize("name", PLANS)
def test_recipes_of_megatron_bridge_set_known_fields(name, tmp_path):
    recipe = _written(_job(name), "megatron-bridge", tmp_path)[0].read_text()
    known = set(target_parsers.OPTIONS["megatron-bridge"]())
    lines = [line.strip() for line in recipe.splitlines() if line.startswith("    cfg.")]
    fields = {line.partition(" = ")[0].removeprefix("cfg.") for line in lines}
    assert len(fields) > 20
    assert fields - {"model", "mixed_precision"} <= known
