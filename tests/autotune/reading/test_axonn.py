"""Arguments of Megatron-AxoNN: degrees by role, and a micro-batch that depth splits."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from towtank.autotune.export.records import ExportError, Job
from towtank.autotune.export.targets import export
from towtank.autotune.reading.records import ReadingError
from towtank.autotune.reading.sources import import_plan
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan
from towtank.simulator.stacks.load import load_stack

SCRIPT = """
NNODES=16
GPUS=$((NNODES * 4))
R=4; C=2; D=4
ARGS="--row-tensor-model-parallel-size ${R} --column-tensor-model-parallel-size ${C} \\
  --depth-tensor-model-parallel-size ${D} --pipeline-model-parallel-size 1 \\
  --num-layers 32 --hidden-size 7168 --num-attention-heads 56 --seq-length 2048 --micro-batch-size 16 \\
  --global-batch-size 64 --bf16 --recompute-granularity full --recompute-method uniform --recompute-num-layers 1 \\
  --num-layers-for-caching-weights-in-depth-tensor-parallel-all-gather 5 --overlap-axonn-comm"
srun -N $NNODES -n $GPUS ./get_rank.sh python -u pretrain_gpt.py $ARGS
"""


@pytest.fixture
def read(tmp_path):
    def reading(text, **more):
        path = tmp_path / "job.sh"
        path.write_text(text)
        return import_plan(path, **more)

    return reading


def test_a_script(read):
    found = read(SCRIPT)
    # 64 devices / (4 x 2 x 4) = 2 replicas; 16 sequences a group / depth 4 = 4 a device
    assert found.plan == Plan(
        tensor_x=4, tensor_y=2, tensor_z=4, data=2, micro_batch=4, global_batch=64, recompute="full", cached_layers=5,
        overlap=Overlap(reduce_scatter=False, all_gather=False),
    )  # fmt: skip
    assert (found.source, found.model, found.ignored) == ("megatron-axonn", "gpt-20b", ())


def test_a_dump(read):
    found = read(
        "row_tensor_model_parallel_size: 2\ncolumn_tensor_model_parallel_size: 1\nworld_size: 8\nbf16: true\n"
        "depth_tensor_model_parallel_size: 4\nmicro_batch_size: 4\noverlap_axonn_comm: true\n"
        "overlap_axonn_reduce_scatter: true\noverlap_axonn_all_gather: true\nlr: 0.1\n"
    )
    assert found.plan == Plan(tensor_x=2, tensor_z=4, global_batch=4)
    assert (found.source, found.ignored) == ("megatron-axonn", ("--lr 0.1",))


@pytest.mark.parametrize(
    ("old", "new", "phrase"),
    [
        (
            "--micro-batch-size 16",
            "--micro-batch-size 6",
            "6 is split over depth and must be a multiple of 4",
        ),
        ("--micro-batch-size 16", "", "--micro-batch-size is missing"),
        ("R=4", "R=3", "3 x columns 2 x depth 4 x pipeline 1 = 24 does not divide 64"),
        ("granularity full", "granularity selective", "every layer or none"),
        ("-n $GPUS", "", "how many devices"),
        ("method uniform", "method block", "every layer or none"),
        (
            "--bf16",
            "--bf16 --use-distributed-optimizer",
            "--use-distributed-optimizer: AxoNN does not run it",
        ),
        (
            "--bf16",
            "--bf16 --num-layers-per-virtual-pipeline-stage 4",
            "per-virtual-pipeline-stage: AxoNN does not",
        ),
    ],
)
def test_what_is_no_plan(read, old, new, phrase):
    with pytest.raises(ReadingError) as caught:
        read(SCRIPT.replace(old, new))
    assert phrase in str(caught.value)


DEGREE = st.sampled_from([1, 2, 4])


@settings(max_examples=40, deadline=None)
@given(
    x=DEGREE, y=DEGREE, z=DEGREE, pipeline=st.sampled_from([1, 2]), data=DEGREE, micro=st.integers(1, 3),
    steps=st.integers(1, 3), full=st.booleans(), cached=st.sampled_from([0, 7]),
    sequence=st.sampled_from([None, 1024]),
    precision=st.sampled_from(["bf16", "fp16", "fp32", "tf32"]),
    off=st.sets(st.sampled_from(["reduce_scatter", "all_gather"])),
)  # fmt: skip
def test_round_trip(x, y, z, pipeline, data, micro, steps, full, cached, sequence, precision, off):
    inside = ("tensor_y", "tensor_x", "tensor_z", "pipeline", "data", "context")
    plan = Plan(
        tensor_x=x, tensor_y=y, tensor_z=z, pipeline=pipeline, data=data, micro_batch=micro, sequence=sequence,
        global_batch=micro * steps * z * data, recompute="full" if full else "none",
        cached_layers=cached if full else 0, precision=precision, overlap=Overlap(**dict.fromkeys(off, False)),
        rank_order=inside if pipeline > 1 and data * z > 1 else DEFAULT_RANK_ORDER,
    )  # fmt: skip
    job = Job(load_model("gpt-5b"), load_machine("perlmutter"), plan, load_stack("axonn"), "perlmutter")
    try:
        text = export(job, "megatron-axonn").files[0].text
    except ExportError:
        assume(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.sh"
        path.write_text(text)
        found = import_plan(path, model=job.model)
    assert (found.source, found.plan) == ("megatron-axonn", plan)
