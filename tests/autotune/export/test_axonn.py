"""Arguments of Megatron-AxoNN: degrees by role, the micro-batch of a data-parallel group."""

import pytest

from towtank.autotune.export.axonn import translate
from towtank.autotune.export.records import ExportError
from towtank.autotune.reading.arguments import read_arguments
from towtank.simulator.plan import Overlap

GPT = {"model": "gpt-20b", "machine": "perlmutter", "stack": "axonn"}
ORDER = ("tensor_y", "tensor_x", "tensor_z", "pipeline", "data", "context")


def options(made) -> dict[str, object]:
    translated = translate(made)
    text = "\n".join([*translated.command.setup, f"srun {translated.command.program}"])
    return dict(read_arguments(text, ("--num-layers",), {}, "made").options)


def test_degrees_by_role(job):
    """Rows split output features (x), columns input features (y), depth the batch (z)."""
    found = options(
        job(
            tensor_x=4,
            tensor_y=2,
            tensor_z=8,
            data=2,
            micro_batch=2,
            global_batch=64,
            recompute="full",
            **GPT,
        )
    )
    wanted = {
        "--row-tensor-model-parallel-size": "4",
        "--column-tensor-model-parallel-size": "2",
        "--depth-tensor-model-parallel-size": "8",
        "--pipeline-model-parallel-size": "1",
        "--micro-batch-size": "16",  # 2 sequences a device x z = 8: 64 / 16 / data 2 = 2 micro-batches, as planned
        "--global-batch-size": "64",
        "--recompute-granularity": "full",
        "--recompute-method": "uniform",
        "--recompute-num-layers": "1",
        "--overlap-axonn-comm": True,
        "--overlap-axonn-reduce-scatter": True,
        "--overlap-axonn-all-gather": True,
        "--bf16": True,
        "--num-layers": "32",
        "--hidden-size": "7168",
        "--num-attention-heads": "56",
        "--ffn-hidden-size": "28672",
        "--max-position-embeddings": "2048",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert "--accumulate-allreduce-grads-in-fp32" not in found  # its parser sets it for bf16


def test_switches_and_cached_layers(job):
    overlap = Overlap(backward_all_reduce=False, all_gather=False)
    made = job(tensor_z=4, data=2, global_batch=8, recompute="full", cached_layers=25, overlap=overlap, **GPT)
    found = options(made)
    assert found["--num-layers-for-caching-weights-in-depth-tensor-parallel-all-gather"] == "25"
    assert found["--layer-caching-level"] == "2"  # all linear layers of a cached layer
    assert found["--overlap-axonn-reduce-scatter"] is True
    assert not {"--overlap-axonn-comm", "--overlap-axonn-all-gather"} & set(found)


AMD = {**GPT, "machine": "frontier"}


@pytest.mark.parametrize(("where", "on"), [(GPT, False), (AMD, True)])
def test_switches_of_amd(job, where, on):
    found = options(job(tensor_z=8, global_batch=8, **where))
    assert ("--use-amd" in found, "--no-gradient-accumulation-fusion" in found) == (on, on)


@pytest.mark.parametrize(("precision", "value"), [("tf32", "1"), ("fp32", "0"), ("bf16", None)])
def test_tf32_is_chosen_by_the_environment(job, precision, value):
    environment = dict(
        translate(job(tensor_z=4, global_batch=4, precision=precision, **GPT)).command.environment
    )
    assert environment.get("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE") == value


FAULTS = {
    "context": ({"context": 2}, "context = 2"),
    "ZeRO": ({"data": 2, "zero_stage": 1}, "zero_stage = 1"),
    "sequence parallel": ({"tensor_x": 4, "sequence_parallel": True}, "sequence_parallel"),
    "overlapped gradients": ({"data": 2, "overlap": Overlap(data_gradients=True)}, "overlap.data_gradients"),
    "selective": ({"recompute": "selective"}, "recompute = selective"),
    "every second": ({"recompute": "full", "recompute_every": 2}, "recompute_every = 2"),
    "interleaving": ({"pipeline": 2, "virtual_stages": 2}, "virtual_stages = 2"),
    "gpipe": ({"pipeline": 2, "schedule": "gpipe"}, "schedule = gpipe"),
    "uneven": ({"pipeline": 2, "stage_layers": (15, 17)}, "unequal size"),
    "order": ({"tensor_z": 4, "data": 2,
               "rank_order": ("data", "tensor_z", "tensor_x", "tensor_y", "context", "pipeline")},
              "numbers its ranks tensor_z < data"),
    "data inside stages": ({"pipeline": 2, "data": 2}, "numbers its ranks pipeline < data"),
    "gradients": ({"gradient_precision": "bf16"}, "gradient precision bf16"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "phrase"), FAULTS.values(), ids=list(FAULTS))
def test_what_it_cannot_run(job, fields, phrase):
    with pytest.raises(ExportError) as caught:
        translate(job(**{**GPT, "global_batch": 32, **fields}))
    assert phrase in str(caught.value)


def test_a_pipeline_inside_data(job):
    found = options(job(pipeline=2, data=2, global_batch=4, rank_order=ORDER, **GPT))
    assert found["--pipeline-model-parallel-size"] == "2"


@pytest.mark.parametrize(
    "model",
    [
        "mixtral-8x7b",
        "deepseek-v3",
        "bloom-7b1",
        "qwen3-8b",
        "gpt-neox-20b",
        "mpt-30b-released",
        "apertus-8b",
    ],
)
def test_models_that_it_lacks(job, model):
    with pytest.raises(ExportError, match=model):
        translate(job(**{**GPT, "model": model}))
