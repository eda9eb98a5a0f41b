"""Recipes of torchtitan: what the function sets, worked out by hand."""

import pytest

from towtank.autotune.export.records import ExportError
from towtank.autotune.export.torchtitan import translate
from towtank.simulator.plan import Overlap


def settings(made) -> dict[str, str]:
    """Values that the recipe sets, by their dotted name."""
    lines = [
        line.strip() for line in translate(made).files[0].text.splitlines() if line.startswith("    cfg.")
    ]
    pairs = [line.removeprefix("cfg.").partition(" = ") for line in lines]
    return {name: value for name, _, value in pairs}


def subset(found, wanted) -> bool:
    return {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("fields", "shard", "replicate", "reshard"),
    [
        ({"data": 16}, "1", "16", '"never"'),
        ({"data": 16, "zero_stage": 2}, "16", "1", '"never"'),
        ({"data": 16, "zero_stage": 3}, "16", "1", '"always"'),
        ({"data": 16, "zero_stage": 3, "data_shard": 4}, "4", "4", '"always"'),
        ({"tensor_z": 8, "data": 2, "stack": "axonn"}, "8", "2", '"always"'),
    ],
)
def test_sharding(job, fields, shard, replicate, reshard):
    found = settings(job(global_batch=16, **fields))
    assert subset(
        found,
        {
            "parallelism.data_parallel_shard_degree": shard,
            "parallelism.data_parallel_replicate_degree": replicate,
            "parallelism.fsdp_reshard_after_forward": reshard,
        },
    )


def test_a_batch_without_a_pipeline_is_accumulated(job):
    # 64 sequences / (2 a rank x 8 ranks) = 4 steps of accumulation
    found = settings(job(data=8, micro_batch=2, global_batch=64))
    assert subset(found, {"training.local_batch_size": "2", "training.global_batch_size": "64"})


def test_a_batch_with_a_pipeline_is_one_step_of_micro_batches(job):
    # 64 sequences / 8 ranks = 8 a rank, in micro-batches of 2
    found = settings(job(data=8, pipeline=2, micro_batch=2, global_batch=64, stack="torchtitan"))
    wanted = {
        "training.local_batch_size": "8",
        "training.global_batch_size": "64",
        "parallelism.pipeline_parallel_microbatch_size": "2",
        "parallelism.pipeline_parallel_schedule": '"1F1B"',
        "training.disable_cuda_graphs": "True",
    }
    assert subset(found, wanted)


def test_stages_are_written_out(job):
    made = job(pipeline=2, virtual_stages=2, stage_layers=(7, 8, 8, 9), global_batch=4)
    text = translate(made).files[0].text
    for line in (
        '["tok_embeddings"] + [f"layers.{i}" for i in range(0, 7)],',
        '[f"layers.{i}" for i in range(7, 15)],',
        '[f"layers.{i}" for i in range(23, 32)] + ["norm", "lm_head"],',
        'pipeline_parallel_schedule = "Interleaved1F1B"',
    ):
        assert line in text


def test_batches_in_tokens_for_later_releases(job):
    notes = " ".join(translate(job(data=8, micro_batch=2, global_batch=64)).notes)
    assert "num_tokens_per_microbatch_per_dp_rank = 16384" in notes  # 2 x 8192
    assert "num_tokens_per_train_step = 524288" in notes  # 64 x 8192


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"recompute": "none"}, "cfg.activation_checkpoint = None"),
        ({"recompute": "selective"}, "cfg.activation_checkpoint = SelectiveAC.Config()"),
        ({"recompute": "full"}, "cfg.activation_checkpoint = FullAC.Config()"),
        ({"precision": "mxfp8"}, "converters=[MXFP8LinearConverter.Config(model_compile_enabled=True)]"),
        ({"precision": "fp32"}, 'cfg.training.mixed_precision_param = "float32"'),
        ({"tensor_x": 2, "sequence_parallel": True, "overlap": Overlap(tensor=True)},
         "cfg.compile.enable_async_tensor_parallel = True"),
        ({"tensor_x": 2}, "cfg.parallelism.enable_sequence_parallel = False"),
    ],
)  # fmt: skip
def test_switches(job, fields, line):
    assert line in translate(job(machine="dgx-b200:nodes=1", global_batch=8, **fields)).files[0].text


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("llama3.1-405b", ['model_registry("405B")', "torchtitan.models.llama3 "]),
        ("qwen3-235b-a22b", ['model_registry("235B-A22B")', "torchtitan.models.qwen3 "]),
        ("deepseek-v3", ['model_registry("671B", num_mtp_layers=1)', "MTPLoss.Config"]),
        ("gpt-oss-20b", ['model_registry("20b")']),
        (
            "llama2-13b",
            ["n_layers=40,", "dim=5120,", "n_heads=40,", "hidden_dim=13824,", "vocab_size=32000,"],
        ),
    ],
)
def test_models(job, model, words):
    text = translate(job(model, data=8, zero_stage=3, global_batch=8)).files[0].text
    compile(text, "recipe", "exec")
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "model", ["mixtral-8x7b", "gpt3-175b", "gemma-7b", "bloom-7b1", "qwen2.5-7b", "mistral-7b"]
)
def test_models_that_it_lacks(job, model):
    with pytest.raises(ExportError, match="ships no model of this shape"):
        translate(job(model))


FAULTS = {
    "y": ({"tensor_y": 2, "stack": "axonn"}, "tensor_y = 2"),
    "ZeRO 1": ({"data": 4, "zero_stage": 1}, "zero_stage = 1"),
    "DDP with context": ({"data": 2, "context": 2}, "context = 2 with zero_stage = 0"),
    "all-to-all": ({"context": 2, "context_kind": "all-to-all", "zero_stage": 3}, "all-to-all"),
    "fp16": ({"precision": "fp16"}, "precision = fp16"),
    "gradients": ({"gradient_precision": "bf16"}, "gradient_precision = bf16"),
    "order": ({"tensor_x": 2, "data": 2,
               "rank_order": ("data", "tensor_x", "tensor_y", "context", "tensor_z", "pipeline")},
              "torchtitan numbers its ranks tensor_x < data"),
    "experts over replicas": ({"model": "qwen3-30b-a3b", "expert": 8, "data": 8}, "must divide shards 1"),
    "an empty chunk": ({"pipeline": 2, "stage_layers": (0, 32)}, "a pipeline chunk without layers"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "phrase"), FAULTS.values(), ids=list(FAULTS))
def test_what_it_cannot_run(job, fields, phrase):
    with pytest.raises(ExportError) as caught:
        translate(job(**{"global_batch": 8, **fields}))
    assert len(caught.value.faults) == 1
    assert phrase in str(caught.value)


def test_one_layer_in_two_is_checkpointed(job):
    """The function of the recipe, run on what stands for FullAC: which layers it wraps."""
    made = translate(job(recompute="full", recompute_every=2, pipeline=2, global_batch=2))
    text = made.files[0].text
    begin = text.index("def some_layers")
    scope: dict[str, object] = {}
    exec(text[begin : text.index("def towtank_plan")], scope)
    wrap = scope["some_layers"](lambda self, module, *, base_fqn: f"{base_fqn} again")  # type: ignore[operator]
    found = [wrap(None, "kept", base_fqn=f"layers.{number}") for number in (0, 1, 2, 15, 16)]
    assert found == ["layers.0 again", "kept", "layers.2 again", "kept", "layers.16 again"]
    assert "    FullAC._wrap_block = some_layers(FullAC._wrap_block)\n" in text
    assert any("leaves the other layers out of FullAC" in note for note in made.notes)


@pytest.mark.parametrize("name", ["llama3.py", "a.b.py", "json.py", "torch.py"])
def test_names_that_python_finds_elsewhere(job, name):
    with pytest.raises(ExportError, match="choose another"):
        translate(job(), name)


def test_what_it_does_by_itself_is_a_note(job):
    notes = translate(job(data=8, zero_stage=3, global_batch=8, overlap=Overlap(all_gather=False))).notes
    assert "overlap.all_gather = false: torchtitan overlaps it by itself" in notes
