"""Traces of the PyTorch profiler: one written by hand like those of a GPU, and one that torch records here."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from towtank.executor.errors import RecordError
from towtank.executor.measured.kineto import import_trace
from towtank.executor.measured.kineto_events import looks_like_trace
from towtank.executor.measured.kineto_kinds import kinds
from towtank.executor.measured.run_record import RunRecord, read_run_record, write_run_record

CAPTURE = Path(__file__).parents[2] / "captures" / "kineto" / "cpu-two-layers.json.gz"


def event(
    category: str, name: str, start: float, length: float, thread: int = 1, **arguments: Any
) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": 0,
        "tid": thread,
        "ts": 1000.0 + start,
        "dur": length,
        "args": {key.replace("_", " "): value for key, value in arguments.items()},
    }


NCCL: dict[str, Any] = {
    "Collective_name": "allreduce",
    "Group_size": 4,
    "Process_Group_Description": "TENSOR_MODEL_PARALLEL_GROUP",
}
GPU_TRACE: dict[str, Any] = {
    "schemaVersion": 1,
    "deviceProperties": [{"id": 0, "name": "NVIDIA H200"}, {"id": 1, "name": "NVIDIA H200"}],
    "distributedInfo": {"backend": "nccl", "rank": 3, "world_size": 8},
    "traceEvents": [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "python"}},
        event("user_annotation", "ProfilerStep#5", -40, 30),
        event("gpu_user_annotation", "ProfilerStep#5", 0, 100),
        event("gpu_user_annotation", "ProfilerStep#6", 100, 100),
        # what the host called, long before the device ran it
        event("cpu_op", "aten::linear", -40, 4, External_id=1),
        event("cpu_op", "aten::addmm", -39, 2, External_id=2),
        event("cpu_op", "autograd::engine::evaluate_function: MmBackward0", -30, 9, thread=2, External_id=3),
        event("cpu_op", "MmBackward0", -29, 7, thread=2, External_id=4),
        event("cpu_op", "aten::mm", -28, 5, thread=2, External_id=5),
        event("user_annotation", "Optimizer.step#AdamW.step", -20, 9, External_id=6),
        event("cpu_op", "aten::_fused_adamw_", -19, 5, External_id=7),
        event("cuda_runtime", "cudaLaunchKernel", -27, 1, thread=2, correlation=90, External_id=5),
        # two steps of the device
        event("kernel", "nvjet_tst_128x256_64x4_2x1_v_bz_TNT", 0, 40, External_id=2),
        event("kernel", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(...)", 30, 20, thread=9, **NCCL),
        event("kernel", "sm90_xmma_gemm_bf16bf16_bf16f32_f32_nt_n_tilesize128x128x64", 50, 40, correlation=90),
        event("kernel", "void at::native::multi_tensor_apply_kernel<adam>(...)", 100, 10, External_id=7),
        event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 105, 10),
        event("kernel", "void at::native::vectorized_elementwise_kernel<4, float>(int)", 150, 20),
        event("kernel", "flash_fwd_kernel", 170, 10),
        event("kernel", "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", 190, 30, Group_size=2),
        {"ph": "i", "name": "[memory]", "args": {"Device Type": 1, "Total Allocated": 5_000_000}},
        {"ph": "i", "name": "[memory]", "args": {"Device Type": 1, "Total Allocated": 3_000_000}},
        {"ph": "i", "name": "[memory]", "args": {"Device Type": 0, "Total Allocated": 9_000_000}},
    ],
}  # fmt: skip


@pytest.fixture
def imported(tmp_path: Path) -> RunRecord:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps(GPU_TRACE).encode()))
    assert looks_like_trace(path)
    return import_trace(path, "0.1.0", model="llama3-8b")


def test_a_gpu_step_by_kind(imported: RunRecord) -> None:
    # two steps of 100 us: halves of what the timeline above adds up to
    expected = {
        "matmul": 40,  # 40 + 40
        "exposed all-reduce tensor_x": 5,  # 10 of 20 beside no kernel
        "optimizer": 5,
        "copy": 2.5,  # 5 of 10 beside the optimizer
        "elementwise": 10,
        "attention": 5,
        "exposed send group of 2": 5,  # cut at the end of the steps
        "idle": 27.5,
    }
    microseconds = {row: 1e6 * seconds for row, seconds in imported.step.breakdown_s.items()}
    assert microseconds == pytest.approx(expected)
    assert imported.step.step_time_s == pytest.approx(100e-6)


def test_operations_of_a_gpu_step_have_names_and_phases_of_the_host(imported: RunRecord) -> None:
    found = {
        (one.name, one.kind): (one.phase, 1e6 * one.seconds, 1e6 * one.exposed_s)
        for one in imported.step.operations
    }
    assert found["aten::linear", "matmul"] == ("forward", pytest.approx(20), pytest.approx(20))
    assert found["MmBackward0", "matmul"] == ("backward", pytest.approx(20), pytest.approx(20))
    assert found["all-reduce tensor_x of 4", "all-reduce tensor_x"][1:] == (
        pytest.approx(10),
        pytest.approx(5),
    )
    assert found["Optimizer.step#AdamW.step", "optimizer"][0] == "optimizer"
    assert found["at::native::vectorized_elementwise_kernel", "elementwise"][0] == "forward"


def test_what_else_a_gpu_trace_says(imported: RunRecord, tmp_path: Path) -> None:
    assert imported.step.peak_memory_bytes == 5_000_000
    assert imported.notes[:3] == (
        "steps in the trace: 2",
        "devices: 2 x NVIDIA H200",
        "rank 3 of 8; times are of this rank",
    )
    write_run_record(imported, tmp_path / "r.json")
    assert read_run_record(tmp_path / "r.json") == imported


RECORDS_TRACE = """
import sys, torch
from torch.profiler import ProfilerActivity, profile, schedule
up, down = torch.nn.Linear(64, 512), torch.nn.Linear(512, 64)
optimizer = torch.optim.AdamW([*up.parameters(), *down.parameters()])
steps = schedule(wait=0, warmup=1, active=2, repeat=1)
with profile(activities=[ProfilerActivity.CPU], schedule=steps) as profiler:
    for _ in range(3):
        x = torch.randn(4, 1, 128, 64, requires_grad=True)
        x = torch.nn.functional.scaled_dot_product_attention(x, x, x)
        down(torch.nn.functional.gelu(up(x))).square().mean().backward()
        optimizer.step()
        profiler.step()
profiler.export_chrome_trace(sys.argv[1])
"""


@pytest.mark.slow
def test_a_trace_that_torch_records_here(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    subprocess.run([sys.executable, "-c", RECORDS_TRACE, str(path)], check=True, capture_output=True)
    record = import_trace(path, "0.1.0")
    rows = record.step.breakdown_s
    assert sum(rows.values()) == pytest.approx(record.step.step_time_s)
    assert {"matmul", "attention", "elementwise", "optimizer"} <= set(rows)
    assert "steps in the trace: 2" in record.notes


def test_a_trace_that_torch_recorded_on_a_cpu() -> None:
    """Two transformer layers, the second recomputed (checkpoint without reentrance), clipping and AdamW."""
    record = import_trace(CAPTURE, "0.1.0")
    rows = record.step.breakdown_s
    assert sum(rows.values()) == pytest.approx(record.step.step_time_s)
    assert set(rows) == {
        "optimizer", "attention", "unnamed", "elementwise", "matmul", "recompute", "gradient norm",
    }  # fmt: skip
    phases = {(one.name, one.phase) for one in record.step.operations if one.kind == "matmul"}
    assert {
        ("aten::linear", "forward"),
        ("aten::linear", "recompute"),
        ("AddmmBackward0", "backward"),
    } == phases
    assert "the trace has no kernels: times are of the host's operators" in record.notes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "all-gather"),
        ("ncclKernel_ReduceScatter_RING_LL_Sum_half(ncclWorkElem)", "reduce-scatter"),
        ("ncclDevKernel_Broadcast_RING_LL", "broadcast"),
        ("gloo:all_reduce", "all-reduce"),
        ("c10d::alltoall_base_", "all-to-all"),
        ("nccl:_reduce_scatter_base", "reduce-scatter"),
        ("ncclDevKernel_Reduce_Sum_f32_RING_LL", "all-reduce"),
    ],
)
def test_collectives_by_name(name: str, kind: str) -> None:
    assert kinds().is_communication(name)
    assert kinds().collective(name, {}) == kind


@pytest.mark.parametrize(
    ("description", "group"),
    [
        ("mesh_tp", "tensor_x"),
        ("DATA_PARALLEL_GROUP_WITH_CP", "data"),
        ("EXPERT_MODEL_PARALLEL_GROUP", "expert"),
        ("EXPERT_DATA_PARALLEL_GROUP", "expert_data"),
        ("PIPELINE_MODEL_PARALLEL_GROUP", "pipeline"),
        ("mesh_dp_shard", "state_shard"),
        ("CONTEXT_PARALLEL_GROUP", "context"),
        ("something else", "group of 8"),
    ],
)
def test_groups_by_description(description: str, group: str) -> None:
    arguments = {"Process Group Description": description, "Group size": 8}
    assert kinds().collective("ncclDevKernel_AllReduce_Sum_bf16", arguments) == f"all-reduce {group}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no JSON"),
        ("{}", "no `traceEvents`"),
        ('{"traceEvents": []}', "holds no operators and no kernels"),
        (
            '{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "a", "ts": 1}]}',
            "lacks its name, time or duration",
        ),
        (
            '{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "a", "ts": 1, "dur": Infinity}]}',
            "they are no numbers: a: ts 1.0, dur inf",
        ),
        (
            '{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "ts": 1, "dur": -2}]}',
            "they are no numbers: a: ts 1.0, dur -2.0",
        ),
        (
            '{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "ts": 1, "dur": 2, '
            '"args": {"External id": [1]}}]}',
            "unhashable",
        ),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_what_is_no_trace_is_said(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(RecordError, match=told):
        import_trace(tmp_path / "t.json", "0")


def test_a_cut_off_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(json.dumps(GPU_TRACE).encode())[:200])
    with pytest.raises(RecordError, match="was not written to its end"):
        import_trace(tmp_path / "t.json.gz", "0")
    assert not looks_like_trace(tmp_path / "none.json")
