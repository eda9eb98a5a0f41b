"""From a row to model, machine, plan and stack."""

import pytest
from made_runs import run

from towtank.hardware_profiles.load import list_machines, load_machine
from towtank.simulator.memory import StageMemory
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import Attention
from towtank.simulator.stacks.load import list_stacks
from towtank.validation.express import Expressed, Inexpressible, express
from towtank.validation.mapping.memory import comparable_bytes
from towtank.validation.mapping.plans import with_ends_as_layers, with_lighter_last, with_rest_in_last
from towtank.validation.mapping.rules import table


def _expressed(**changes: object) -> Expressed:
    found = express(run(**changes))
    assert isinstance(found, Expressed), found
    return found


def _said(found: Expressed, part: str) -> bool:
    return any(part in line for line in found.assumptions)


def test_a_complete_row_is_taken_as_it_is() -> None:
    found = _expressed()
    plan = found.plan
    assert (plan.tensor_x, plan.data, plan.pipeline, plan.micro_batch, plan.global_batch) == (2, 8, 1, 1, 64)
    assert (plan.zero_stage, plan.recompute, plan.precision, plan.sequence_parallel) == (
        1,
        "none",
        "bf16",
        True,
    )
    assert found.stack.name == "megatron-core"
    assert found.machine.device.name == "h100-80gb-sxm"
    assert found.model.mlp.hidden == 11008


@pytest.mark.parametrize(
    ("framework", "stack"),
    [
        ("nanotron v0.5", "nanotron"),
        ("Megatron-Bridge (Megatron-Core)", "megatron-core"),
        ("Megatron-DeepSpeed 3D", "megatron-deepspeed"),
        ("Megatron-LM v1.1.5 + DeepSpeed ZeRO-3", "megatron-deepspeed"),
        ("llm-foundry/Composer PyTorch FSDP", "llm-foundry"),
        ("torchtitan (FSDP2)", "torchtitan"),
        ("MaxText (JAX)", "jax-spmd"),
        ("InternEvo", "internevo"),
        ("Megatron-LM (nemo 26.04)", "megatron-core"),
    ],
)
def test_frameworks(framework: str, stack: str) -> None:
    changes = {"zero_stage": "3"} if stack in ("llm-foundry", "torchtitan") else {}
    tensor = {"tp": 1, "dp": 16} if stack in ("llm-foundry", "megatron-deepspeed") else {}
    found = _expressed(framework=framework, sequence_parallel=None, **changes, **tensor)
    assert found.stack.name == stack


def test_an_unknown_framework_is_an_assumption() -> None:
    found = _expressed(framework="my trainer")
    assert found.stack.name == "megatron-core"
    assert _said(found, "my trainer")


def test_blanks_are_filled_in_and_said() -> None:
    found = _expressed(
        vpp=None,
        zero_stage="",
        recompute="",
        precision="",
        sequence_parallel=None,
        kv_heads=None,
        micro_batch=None,
    )
    for part in (
        "zero_stage blank: 1",
        "recompute blank",
        "precision blank: bf16",
        "sequence_parallel blank",
        "kv_heads",
    ):
        assert _said(found, part), part
    assert _said(found, "micro_batch blank: 1")


def test_micro_batch_follows_from_accumulation_and_from_fsdp() -> None:
    assert _expressed(micro_batch=None, grad_accum=4).plan.micro_batch == 2  # 64 / (8 x 4)
    fsdp = _expressed(framework="torchtitan", zero_stage="3", tp=1, dp=16, micro_batch=None)
    assert fsdp.plan.micro_batch == 4  # the whole replica: 64 / 16


def test_data_degree_is_what_is_left() -> None:
    found = _expressed(dp=None)
    assert found.plan.data == 8
    assert _said(found, "dp blank: 8")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dp": 4}, "contradicts gpus = 16"),
        ({"device": "h100-80gb-sx"}, "did you mean"),
        ({"global_batch_seqs": None}, "global_batch_seqs is blank"),
        ({"global_batch_seqs": 63}, "must be a multiple"),
        (
            {"layers": None, "hidden": None, "heads": None, "model": "no such model"},
            "shape of no such model unknown",
        ),
        ({"model": "nemotron-h-56b"}, "state-space"),
        ({"zero_stage": "3+offload"}, "offload"),
        ({"zero_stage": "7"}, "not understood"),
        ({"precision": "int8"}, "not modelled"),
        ({"device": "a100-80gb-sxm", "precision": "fp8"}, "computes in"),
        ({"tp": 3, "gpus": 24}, "multiple of tensor_x"),
        ({"faults": ("gpus = 'x' must be a number or blank",)}, "gpus = 'x'"),
    ],
)
def test_what_cannot_be_expressed_says_why(changes: dict[str, object], reason: str) -> None:
    found = express(run(**changes))
    assert isinstance(found, Inexpressible)
    assert reason in found.reason


def test_recompute_that_is_not_printed_is_what_fits() -> None:
    big = {"layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "ffn_hidden": 28672}
    shape = {"tp": 8, "dp": 8, "gpus": 64, "micro_batch": 16, "global_batch_seqs": 128, "seq_len": 8192}
    found = _expressed(model="big", recompute="", zero_stage="3", framework="torchtitan", **big, **shape)
    assert found.plan.recompute in ("selective", "full")
    assert _said(found, "does not fit into memory")


def test_the_zoo_brings_what_columns_cannot_hold() -> None:
    found = _expressed(
        model="deepseek-v3-671b", layers=4, hidden=7168, heads=128, kv_heads=128, ffn_hidden=18432, vocab=129280,
        moe_experts=256, moe_topk=8, moe_ffn_hidden=2048, tp=1, dp=16, ep=8, notes="w/o MTP",
    )  # fmt: skip
    zoo = load_model("deepseek-v3")
    assert found.model.attention == zoo.attention
    assert found.model.num_layers == 4
    assert found.model.mtp_layers == 0
    assert zoo.mtp_layers == 1
    assert found.model.experts is not None
    assert found.model.experts.first_dense_layers == 3


def test_a_model_is_found_by_name_where_the_columns_are_blank() -> None:
    found = _expressed(
        model="Llama 2 7B", layers=None, hidden=None, heads=None, kv_heads=None, ffn_hidden=None
    )
    assert found.model.num_layers == 32


def test_a_size_that_disagrees_with_the_shape_is_said() -> None:
    assert _said(_expressed(params_b=13.0), "the row prints 13B")
    assert not _said(_expressed(params_b=6.74), "the row prints")


def test_the_kernel_of_attention_is_what_the_row_says() -> None:
    plain = _expressed(flash_attention=False)
    assert plain.stack.kernels.attention == "unfused"
    assert _said(plain, "attention kernel unfused")
    assert _expressed(flash_attention=None).stack.kernels.attention == "best"


def test_facts_in_notes_reach_the_plan() -> None:
    assert _expressed(notes="zero1 group size 4; x").plan.data_shard == 4
    assert _expressed(notes="async TP, bf16").plan.overlap.tensor is True
    hsdp = _expressed(framework="torchtitan", zero_stage="HSDP", tp=1, dp=16)
    assert (hsdp.plan.zero_stage, hsdp.plan.data_shard) == (3, 8)


def test_packed_documents_do_not_see_each_other() -> None:
    packed = _expressed(notes="full-parameter SFT, packed sequences, MFU counts 6N per token")
    assert isinstance(packed.model.attention, Attention)
    assert packed.model.attention.windows == (246,)  # 3 x 128 x 128 / 200
    assert _said(packed, "packed short documents")
    whole = _expressed()
    assert isinstance(whole.model.attention, Attention)
    assert whole.model.attention.windows == (None,)


def test_an_expert_tensor_degree_in_the_notes() -> None:
    moe = {"moe_experts": 8, "moe_topk": 2, "moe_ffn_hidden": 2048, "ep": 4, "model": "a mixture"}
    assert _expressed(**moe).plan.expert_tensor == 1
    assert _expressed(**moe, notes="expert tensor parallel 2").plan.expert_tensor == 2


def test_embedding_and_head_as_layers() -> None:
    assert with_ends_as_layers(70, 12) == (5, *[6] * 10, 5)  # BLOOM: 72 / 12
    assert with_ends_as_layers(70, 8) == (8, *[9] * 6, 8)
    assert with_ends_as_layers(70, 7) is None
    assert with_ends_as_layers(70, 1) is None


def test_all_chunks_full_but_the_last() -> None:
    # NVIDIA's recipes of DeepSeek-V3: 61 layers
    assert with_rest_in_last(61, 16) == (*[4] * 15, 1)
    assert with_rest_in_last(61, 8) == (*[8] * 7, 5)
    assert with_rest_in_last(9, 7) is None  # six chunks of two leave nothing


def test_the_layout_of_a_public_recipe_reaches_the_plan() -> None:
    changes = {"model": "deepseek-v3", "layers": 61, "hidden": 7168, "heads": 128, "kv_heads": None, "tp": 1}
    pipeline = {"pp": 8, "dp": 8, "gpus": 64, "sequence_parallel": None}
    found = _expressed(**changes, **pipeline, framework="Megatron-Bridge")
    assert found.plan.stage_layers == (*[8] * 7, 5)
    assert _said(found, "all pipeline chunks are full but the last")
    assert _expressed(**changes, **pipeline, framework="Megatron-LM").plan.stage_layers is None


@pytest.mark.parametrize(
    ("changes", "stack"),
    [
        ({"notes": "26.06 NeMo container", "precision": "mxfp8", "pp": 1}, "megatron-core-full-graphs"),
        ({"notes": "26.06 NeMo container", "precision": "mxfp8", "pp": 2, "dp": 8}, "megatron-core-graphs"),
        ({"notes": "26.04 NeMo container", "precision": "mxfp8"}, "megatron-core-graphs"),
        ({"notes": "26.06 NeMo container", "precision": "bf16"}, "megatron-core-graphs"),
        ({"notes": "25.09 NeMo container", "precision": "mxfp8"}, "megatron-core"),
        ({"notes": "DeepEP; forced balance", "framework": "Megatron-Core (dev)"}, "megatron-core-flex"),
        ({"notes": "26.06 NeMo container", "precision": "mxfp8", "moe_experts": None}, "megatron-core"),
    ],
)
def test_the_release_tells_how_experts_run(changes: dict[str, object], stack: str) -> None:
    base: dict[str, object] = {
        "framework": "Megatron-Bridge (Megatron-Core)",
        "model": "qwen3 of tests",
        "device": "gb200",
        "moe_experts": 8,
        "moe_topk": 2,
        "moe_ffn_hidden": 2048,
        "tp": 1,
        "dp": 16,
        "sequence_parallel": None,
    }
    assert _expressed(**(base | changes)).stack.name == stack


@pytest.mark.parametrize(("name", "experts"), [("gpt-oss-120b", 128), ("GPT-OSS 20B", 32)])
def test_sizes_of_a_family_are_told_apart(name: str, experts: int) -> None:
    found = _expressed(
        model=name, hidden=2880, heads=64, kv_heads=8, moe_experts=experts, moe_topk=4, tp=1, dp=16
    )
    assert found.model.experts is not None
    assert found.model.experts.num_experts == experts
    assert found.model.attention.head_dim == 64  # 2880 / 64 is 45


def test_a_layer_moved_from_the_last_chunk_to_the_first() -> None:
    assert with_lighter_last(64, 8) == (9, *[8] * 6, 7)  # Et*9|t*8|...|t*7L of OpenEuroLLM's 32B
    assert with_lighter_last(64, 16) == (5, *[4] * 14, 3)
    assert with_lighter_last(52, 8) is None
    assert with_lighter_last(64, 1) is None


def test_settings_that_the_jupiter_pages_print_by_difference() -> None:
    study = {
        "source": "OpenEuroLLM JUPITER speed study (Megatron-LM, GH200)",
        "source_locator": "oellm_32b_dense/SPEED_RESULTS.md @0f55a156",
        "model": "Qwen3-like 32B", "device": "gh200-96gb", "layers": 64, "gpus": 2048, "gpus_per_node": 4,
        "tp": 4, "pp": 4, "vpp": 2, "dp": 128, "global_batch_seqs": 4096,
    }  # fmt: skip
    found = _expressed(**study)
    assert found.plan.stage_layers == (9, *[8] * 6, 7)
    assert found.plan.gradient_precision == "bf16"
    assert found.plan.overlap.tensor is True
    assert _expressed(**study, notes="tensorwise, fp32 grad").plan.gradient_precision == "fp32"
    ladder = _expressed(**study | {"source_locator": 'RESULTS.md "weak model axis"'})
    assert ladder.plan.stage_layers is None


def test_a_sequence_is_cut_where_tensor_ranks_do_not_divide_it() -> None:
    found = _expressed(
        tp=6, gpus=24, dp=4, heads=48, kv_heads=48, hidden=6144, ffn_hidden=24576, device="a100-80gb-sxm"
    )
    assert found.plan.sequence == 4092  # 682 x 6
    assert _said(found, "sequence cut")


def test_the_grid_of_axonn() -> None:
    changes = {
        "framework": "AxoNN 4D",
        "tp": None,
        "pp": None,
        "dp": None,
        "cp": None,
        "zero_stage": "",
        "recompute": "",
    }
    printed = _expressed(**changes, gx=2, gy=2, gz=2, gdata=2, gpus=16, sequence_parallel=None)
    assert (printed.plan.tensor_x, printed.plan.tensor_y, printed.plan.tensor_z, printed.plan.data) == (
        2,
        2,
        2,
        2,
    )
    ranked = _expressed(
        **changes, system="Perlmutter", device="a100", gpus_per_node=4, sequence_parallel=None
    )
    assert ranked.machine.name == "perlmutter"
    assert ranked.plan.num_devices == 16
    assert ranked.plan.recompute == "full"
    assert _said(ranked, "grid not printed")


@pytest.mark.parametrize(
    ("changes", "machine", "devices"),
    [
        ({"system": "Jean Zay", "device": "v100-32gb", "gpus_per_node": 4, "precision": "fp16"}, "jean-zay-v100", 4),
        ({"system": "Selene", "device": "a100-80gb-sxm"}, "selene", 8),
        ({"system": "somewhere", "device": "a100-80gb-sxm"}, "dgx-a100", 8),
        ({"system": "somewhere", "device": "a100-80gb-sxm", "gpus_per_node": 4}, "dgx-a100", 4),
        ({"system": "DGX-GB200", "device": "gb200", "gpus_per_node": 4}, "gb200-nvl72", 72),
        ({"system": "DGX-GB200", "device": "gb200", "gpus_per_node": 4, "gpus": 128, "dp": 64}, "gb200-nvl72", 64),
        ({"system": "", "device": "gb200", "gpus": 144, "dp": 72, "global_batch_seqs": 72}, "gb200-nvl72", 72),
    ],
)  # fmt: skip
def test_machines(changes: dict[str, object], machine: str, devices: int) -> None:
    found = _expressed(**changes)
    assert found.machine.name == machine
    assert found.machine.node.devices == devices


def test_a_smaller_node_keeps_its_share_of_the_network() -> None:
    whole = load_machine("dgx-a100").node
    half = _expressed(system="", device="a100-80gb-sxm", gpus_per_node=4).machine.node
    assert half.nics * 2 == whole.nics
    assert half.injection_bytes_per_s is not None
    assert half.injection_bytes_per_s * 2 == pytest.approx(whole.injection_bytes_per_s)


def test_every_name_in_the_rules_exists() -> None:
    assert {rule["stack"] for rule in table("frameworks")} <= set(list_stacks())
    assert set(table("plans")["blanks"]) <= set(list_stacks())
    machines = table("machines")
    for reference in [*(rule["machine"] for rule in machines["systems"]), *machines["devices"].values()]:
        assert load_machine(reference).name in list_machines()
    for rule in table("models")["zoo"]:
        load_model(rule["model"])
    for device, reference in machines["devices"].items():
        assert load_machine(reference).device.name == device


def test_a_sequence_that_contradicts_the_printed_rate() -> None:
    """The source derives tokens/s; the step time of the row counts 4,096 of the 8,192 tokens that ran."""
    notes = "Source prints seq 4096 (check): the true sequence length is probably 8192."
    found = _expressed(seq_len=4096, notes=notes)
    assert found.plan.sequence == 8192
    assert found.step_share == 0.5
    assert _expressed().step_share == 1.0


def test_memory_read_on_the_first_node_is_that_of_the_first_stage() -> None:
    stages = [
        StageMemory(0, {"weights": 10.0, "device context": 1.0}, 2),
        StageMemory(1, {"logits": 30.0}, 1),
    ]
    assert comparable_bytes(run(source="BigScience tr3m 1.3B benchmark"), stages) == 11
    assert comparable_bytes(run(source="BigScience BLOOM chronicles"), stages) == 30
    # what is not stated is taken as the allocator's, without the context
    assert comparable_bytes(run(source="NVIDIA"), stages[:1]) == 10
