"""Rows and results made by hand."""

from dataclasses import replace

from towtank.validation.evaluate import Result
from towtank.validation.features import Features
from towtank.validation.rows import Run

RUN = Run(
    id="a",
    device="h100-80gb-sxm",
    gpus=16,
    model="llama2-7b",
    seq_len=4096,
    global_batch_seqs=64,
    gate=True,
    source="NVIDIA/dgxc-benchmarking v25.02",
    system="DGX-H100",
    gpus_per_node=8,
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=32,
    ffn_hidden=11008,
    gated_mlp=True,
    vocab=32000,
    micro_batch=1,
    tp=2,
    pp=1,
    dp=8,
    cp=1,
    zero_stage="1",
    recompute="none",
    precision="bf16",
    sequence_parallel=True,
    flash_attention=True,
    framework="NeMo (Megatron-Core)",
    step_time_s=2.0,
)


def run(**changes: object) -> Run:
    return replace(RUN, **changes)  # type: ignore[arg-type]


def result(measured: float | None, predicted: float | None, **changes: object) -> Result:
    """A judged result: model FLOP 1e15, 16 devices of 1e15 FLOP/s."""
    fields = {name: changes.pop(name) for name in tuple(changes) if name in Result.__dataclass_fields__}
    values: dict[str, object] = {
        "run": run(step_time_s=measured, **changes),
        "status": "ok" if predicted is not None else "inexpressible",
        "stack": "megatron-core",
        "device": "h100-80gb-sxm",
        "num_devices": 16,
        "precision": "bf16",
        "predicted_step_time_s": predicted,
        "predicted_peak_memory_bytes": 50.0 * 2**30,
        "comparable_memory_bytes": 40.0 * 2**30,
        "capacity_bytes": 80.0 * 2**30,
        "fits": True if predicted is not None else None,
        "model_flop": 1e15,
        "peak_flop_per_s": 1e15,
    }
    return Result(**(values | fields))  # type: ignore[arg-type]


def features(**changes: object) -> Features:
    base = Features("h100-80gb-sxm", "InfiniBand NDR", "megatron-core", "bf16", False, 64, 8, False, False)
    return replace(base, **changes)  # type: ignore[arg-type]
