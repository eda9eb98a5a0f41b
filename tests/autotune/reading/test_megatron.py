"""Arguments of Megatron-LM as they stand in scripts, lists, dumps and logs."""

import json

import pytest

from towtank.autotune.reading.megatron_stages import expanded, stages
from towtank.autotune.reading.records import Options, ReadingError
from towtank.autotune.reading.sources import detect, import_plan
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan

SCRIPT = r"""#!/bin/bash
#SBATCH --nodes=16
GPUS_PER_NODE=8
NNODES=${SLURM_NNODES:-16}
TP=8; PP=4
WORLD_SIZE=$((GPUS_PER_NODE*NNODES))
DISTRIBUTED_ARGS="--nproc_per_node $GPUS_PER_NODE --nnodes $NNODES --master_addr $MASTER_ADDR"
GPT_ARGS="
    --num-layers 80 \
    --hidden-size 8192 \
    --num-attention-heads 64 \
    --group-query-attention --num-query-groups 8 \
    --ffn-hidden-size=28672 \
    --seq-length 8192 --max-position-embeddings 8192 \
    --micro-batch-size 1 --global-batch-size 512 \
    --bf16 --lr 3.0e-4
"
torchrun $DISTRIBUTED_ARGS pretrain_gpt.py $GPT_ARGS \
    --tensor-model-parallel-size $TP --pipeline-model-parallel-size ${PP} --sequence-parallel \
    --num-layers-per-virtual-pipeline-stage 5 --use-distributed-optimizer --overlap-grad-reduce \
    --overlap-param-gather --recompute-activations --tensorboard-dir "$OUT/logs dir" 2>&1 | tee log
"""
PLAN = Plan(
    tensor_x=8, pipeline=4, virtual_stages=4, sequence_parallel=True, data=4, zero_stage=1, global_batch=512,
    recompute="selective", sequence=8192,
)  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def reading(text, name="train.sh", **more):
        path = tmp_path / name
        path.write_text(text)
        return import_plan(path, **more)

    return reading


def test_a_script(read):
    found = read(SCRIPT)
    # 80 layers / 4 stages / 5 layers a chunk = 4 chunks; 128 devices / 8 / 4 = 4 replicas
    assert found.plan == PLAN
    assert found.source == "megatron"
    assert found.ignored == ("--lr 3.0e-4", "--tensorboard-dir $OUT/logs dir")
    assert found.notes == ("the shape is that of llama2-70b, llama3-70b; say which with --model",)


def test_the_model_is_named_by_its_vocabulary(read):
    found = read(SCRIPT.replace("--bf16", "--bf16 --vocab-size 128256"))
    assert found.model == "llama3-70b"
    assert found.plan.sequence is None  # the model's own


def test_devices_of_the_caller_come_first(read):
    assert read(SCRIPT, devices=64).plan.data == 2


def test_a_list_of_arguments(read):
    found = read("--tensor-model-parallel-size 2 --micro-batch-size 4 --bf16\n--fp8-format hybrid", devices=8)
    assert found.plan == Plan(
        tensor_x=2, data=4, micro_batch=4, global_batch=16, precision="fp8", overlap=OFF
    )


OFF = Overlap(data_gradients=False)
DUMP = {
    "tensor_model_parallel_size": 4, "pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2,
    "num_layers_per_virtual_pipeline_stage": 8, "context_parallel_size": 2, "cp_comm_type": ["p2p"], "world_size": 64,
    "num_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_query_groups": 8, "seq_length": 4096,
    "group_query_attention": True, "micro_batch_size": 2, "global_batch_size": 64, "sequence_parallel": True,
    "fp8": None,
    "use_distributed_optimizer": True, "overlap_p2p_comm": True, "overlap_grad_reduce": True,
    "overlap_param_gather": True, "recompute_granularity": "full", "recompute_method": "uniform",
    "recompute_num_layers": 1, "bf16": True, "expert_model_parallel_size": 1, "num_experts": None,
    "lr": 0.1, "rank": 0,
}  # fmt: skip
DUMPED = Plan(
    tensor_x=4, pipeline=2, virtual_stages=2, context=2, data=4, zero_stage=1, sequence_parallel=True, micro_batch=2,
    global_batch=64, sequence=4096, recompute="full",
)  # fmt: skip


def test_a_dump(read):
    found = read(json.dumps(DUMP), "args.json")
    assert found.plan == DUMPED
    assert found.ignored == ("--lr 0.1",)


def test_a_dump_in_sections(read):
    yaml_text = "\n".join(f"  {key}: {json.dumps(value)}" for key, value in DUMP.items())
    assert read(f"model_parallel:\n{yaml_text}\n", "args.yaml").plan == DUMPED


def test_the_list_in_a_log(read):
    lines = [f"  {key} {'.' * (48 - len(key))} {value}" for key, value in DUMP.items()]
    text = "\n".join(["using world size: 64", "----------- arguments -----------", *lines, "------- end"])
    assert read(text, "log.txt").plan == DUMPED


def test_sends_that_do_not_overlap(read):
    changed = read(json.dumps(DUMP | {"overlap_p2p_comm": False}), "args.json")
    assert changed.plan.overlap == Overlap(pipeline=False)


BASE = "--num-layers 32 --hidden-size 4096 --num-attention-heads 32 --micro-batch-size 1 "


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ("--bf16 --use-distributed-optimizer --num-distributed-optimizer-instances 4",
         {"zero_stage": 1, "data_shard": 4}),
        ("--bf16 --use-megatron-fsdp --data-parallel-sharding-strategy optim_grads", {"zero_stage": 2}),
        ("--bf16 --use-megatron-fsdp", {"zero_stage": 3}),
        ("--bf16 --use-torch-fsdp2", {"zero_stage": 3}),
        ("--fp16", {"precision": "fp16", "gradient_precision": "fp16"}),
        ("--fp16 --accumulate-allreduce-grads-in-fp32", {"precision": "fp16", "gradient_precision": None}),
        ("--bf16 --grad-reduce-in-bf16", {"gradient_precision": "bf16"}),
        ("--bf16 --use-precision-aware-optimizer --main-grads-dtype bf16", {"gradient_precision": "bf16"}),
        ("--bf16 --main-grads-dtype bf16", {"gradient_precision": None}),  # of that optimizer only
        ("--bf16 --fp8-format e4m3 --fp8-recipe mxfp8", {"precision": "mxfp8"}),
        ("--bf16 --fp4-format e2m1", {"precision": "nvfp4"}),
        ("--bf16 --context-parallel-size 2 --cp-comm-type a2a",
         {"context": 2, "context_kind": "all-to-all", "data": 8}),
        # without an option of their own, experts are split like the rest
        ("--bf16 --num-experts 8 --expert-model-parallel-size 4 --tensor-model-parallel-size 2 --sequence-parallel",
         {"expert": 4, "expert_tensor": 2}),
        ("--bf16 --num-experts 8 --expert-tensor-parallel-size 1 --tensor-model-parallel-size 2",
         {"expert": 1, "expert_tensor": 1}),
        ("--bf16 --recompute-granularity full --recompute-method block --recompute-num-layers 8",
         {"recompute": "full", "recompute_every": 4}),
        ("--bf16 --recompute-granularity full --recompute-method block --recompute-num-layers 99",
         {"recompute": "full", "recompute_every": 1}),
        ("--bf16 --pipeline-model-parallel-size 4 --use-tp-pp-dp-mapping",
         {"rank_order": ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data")}),
        ("--bf16", {"rank_order": DEFAULT_RANK_ORDER, "zero_stage": 0, "recompute": "none"}),
        ("--bf16 --checkpoint-activations", {"recompute": "full", "recompute_every": 1}),
        ("--bf16 --micro-batch-size 2 --micro-batch-size 3", {"micro_batch": 3, "global_batch": 48}),
    ],
)  # fmt: skip
def test_options(read, more, wanted):
    plan = read(BASE + more, devices=16).plan
    assert {name: getattr(plan, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("E|(t|)*3,m|m||L", "E|t|t|t|m|m||L"),
        ("Et*3|t*4|t*3L", "Ettt|tttt|tttL"),
        ("E(tt|)*2 L", "Ett|tt|L"),
        ("E((t|)*2t|)*2L", "Et|t|t|t|t|t|L"),
    ],
)
def test_layouts_expand(layout, text):
    assert expanded(layout) == text


@pytest.mark.parametrize(
    ("words", "pipeline", "virtual", "counts", "written"),
    [
        ({"--num-layers-per-virtual-pipeline-stage": "4"}, 4, 2, (4,) * 8, None),
        ({"--num-virtual-stages-per-pipeline-rank": "2"}, 4, 2, (4,) * 8, None),
        ({"--pipeline-model-parallel-layout": "Et*7|t*9|t*9|t*7L"}, 4, 1, (7, 9, 9, 7), (7, 9, 9, 7)),
        ({"--pipeline-model-parallel-layout": "E|t*10|t*11|t*11L"}, 2, 2, (0, 10, 11, 11), (0, 10, 11, 11)),
        # 32 + 2 counted on 2 stages: 17 each, less embedding and loss
        ({"--account-for-embedding-in-pipeline-split": True, "--account-for-loss-in-pipeline-split": True},
         2, 1, (16, 16), None),
        # 32 less 6 and 6 on the two others
        ({"--decoder-first-pipeline-num-layers": "6", "--decoder-last-pipeline-num-layers": "6"},
         4, 1, (6, 10, 10, 6), (6, 10, 10, 6)),
        ({"--decoder-last-pipeline-num-layers": "8", "--num-virtual-stages-per-pipeline-rank": "2"},
         3, 2, (6, 6, 4, 6, 6, 4), (6, 6, 4, 6, 6, 4)),
    ],
)  # fmt: skip
def test_stages(words, pipeline, virtual, counts, written):
    options = Options({"--num-layers": "32", **words})
    found = stages(options, pipeline, None)
    assert options.faults == []
    assert (found.virtual, found.counts, found.layers) == (virtual, counts, written)


def test_layers_of_a_model_that_the_caller_names():
    found = stages(Options({"--num-layers-per-virtual-pipeline-stage": "4"}), 4, load_model("llama3-8b"))
    assert found.virtual == 2


FAULTS = {
    "no devices": (BASE, {}, ["how many devices", "--devices N"]),
    "devices do not divide": (f"{BASE} --tensor-model-parallel-size 3", {"devices": 8},
                              ["3 does not divide 8", "--devices"]),
    "no micro-batch": ("--tensor-model-parallel-size 2 --bf16", {"devices": 2}, ["--micro-batch-size is missing"]),
    "variable": ("run x.py --micro-batch-size $MBS --bf16", {"devices": 2}, ["$MBS", "--define NAME=VALUE"]),
    "not a number": (f"{BASE} --tensor-model-parallel-size two", {"devices": 2}, ["'two' must be a whole number"]),
    "two kinds of context": (f"{BASE} --context-parallel-size 2 --cp-comm-type p2p a2a", {"devices": 2}, ["p2p a2a"]),
    "shards in the tensor group": (f"{BASE} --tensor-parallel-num-weight-shards 4", {"devices": 4},
                                   ["weights sharded"]),
    "part of the layers": (
        f"{BASE} --recompute-granularity full --recompute-method block --recompute-num-layers 5", {"devices": 1},
        ["5 of 32 layers"],
    ),
    "layers of a chunk": (f"{BASE} --pipeline-model-parallel-size 4 --num-layers-per-virtual-pipeline-stage 3",
                          {"devices": 4}, ["3 x 4 stages does not divide 32"]),
    "more stages than layers": (f"{BASE} --pipeline-model-parallel-size 1000000000 "
                                "--decoder-first-pipeline-num-layers 1",
                                {"devices": 1000000000}, ["more than the 32 layers"]),
    "endless layout": (f"{BASE} --pipeline-model-parallel-layout Et*999999999999L", {"devices": 1},
                       ["other than E, t"]),
    "replicas": (f"{BASE} --use-distributed-optimizer --num-distributed-optimizer-instances 3", {"devices": 8},
                 ["3 does not divide the data-parallel degree 8"]),
    "master copy": (f"{BASE} --use-precision-aware-optimizer --main-params-dtype fp16", {"devices": 1},
                    ["--main-params-dtype fp16"]),
    "states split over replicas too": (
        f"{BASE} --use-megatron-fsdp --num-distributed-optimizer-instances 2 --outer-dp-sharding-strategy optim",
        {"devices": 8}, ["--outer-dp-sharding-strategy optim"],
    ),
    "another model": (BASE, {"devices": 1, "model": load_model("llama3-70b")},
                      ["--num-layers 32, but llama3-70b has 80", "--hidden-size"]),
    "nothing": ("echo hello\n", {"devices": 1}, ["holds no option"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "more", "phrases"), FAULTS.values(), ids=list(FAULTS))
def test_what_is_no_plan(read, text, more, phrases):
    with pytest.raises(ReadingError) as caught:
        read(text, **more)
    for phrase in phrases:
        assert phrase in str(caught.value)


def test_all_reasons_at_once(read):
    with pytest.raises(ReadingError) as caught:
        read(
            "run x.py --tensor-model-parallel-size two --seq-length $S --cp-comm-type b --context-parallel-size 2"
        )
    assert len(caught.value.faults) == 5


NOTES = {
    "blockwise": ("--bf16 --fp8-format e4m3 --fp8-recipe blockwise", "taken as fp8"),
    "units of four": (
        "--bf16 --recompute-granularity full --recompute-method uniform --recompute-num-layers 4",
        "each layer",
    ),
    "modules": (
        "--bf16 --recompute-granularity selective --recompute-modules mlp moe_act",
        "taken as selective",
    ),
}


@pytest.mark.parametrize(("more", "phrase"), NOTES.values(), ids=list(NOTES))
def test_what_a_plan_says_less_exactly(read, more, phrase):
    found = read(BASE + more, devices=1)
    assert any(phrase in note for note in found.notes)


def test_variables_of_the_environment(read):
    text = "torchrun --nnodes $N --nproc_per_node 8 x.py --micro-batch-size $MBS --bf16"
    found = read(text, defined={"MBS": "2", "N": "4"})
    assert (found.plan.micro_batch, found.plan.data) == (2, 32)


@pytest.mark.parametrize(
    ("launch", "devices"),
    [
        ("srun -N 4 -n 32 python x.py", 32),
        ("srun --nodes=4 --ntasks-per-node=8 bash -c x y x.py", 32),
        ("#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\nsrun python x.py", 8),
        ("torchrun --nproc_per_node=4 x.py", 4),
        ("torchrun --nnodes=2 --nproc-per-node 8 x.py", 16),
        ("export WORLD_SIZE=24\npython x.py", 24),
        ("deepspeed --num_nodes 2 --num_gpus 8 x.py", 16),
        ("accelerate launch --num_machines 2 --num_processes 16 x.py", 16),
    ],
)
def test_devices_of_launchers(read, launch, devices):
    assert read(f"{launch} --micro-batch-size 1 --bf16").plan.data == devices


def test_the_source_is_found_from_the_content():
    assert detect('{"train_batch_size": 8}') == "deepspeed"
    assert detect('{"tensor_model_parallel_size": 8}') == detect("--bf16") == "megatron"


def test_broken_json_is_called_so(tmp_path) -> None:
    path = tmp_path / "args.json"
    path.write_text('{"tensor_model_parallel_size": 4,')
    with pytest.raises(ReadingError, match=r"starts like JSON and is not JSON: .* column"):
        import_plan(path)
