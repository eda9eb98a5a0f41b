"""Plans that cover every dimension and their combinations, on up to eight processes."""

from dataclasses import dataclass
from typing import Any

from towtank.executor.equality.models import MODELS
from towtank.executor.settings import Dtype, RunSettings
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.load import load_stack

STACK = "towtank-executor"
STEPS = 10
GLOBAL_BATCH = 8
NO_OVERLAP = Overlap(
    data_gradients=False,
    parameter_gather=False,
    tensor=False,
    backward_all_reduce=False,
    reduce_scatter=False,
    all_gather=False,
    pipeline=False,
)
ALL_OVERLAPS = Overlap(
    data_gradients=True,
    parameter_gather=True,
    backward_all_reduce=True,
    reduce_scatter=True,
    all_gather=True,
    pipeline=True,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A plan that has to train like one process."""

    name: str
    model: str
    """One of `models.MODELS`."""
    plan: Plan
    dtype: Dtype = "float64"
    dropout: float = 0.0

    @property
    def settings(self) -> RunSettings:
        """The run. The learning rate is high, so that ten steps change every weight."""
        return RunSettings(
            MODELS[self.model],
            self.plan,
            load_stack(STACK),
            self.dtype,
            seed=7,
            steps=STEPS,
            learning_rate=0.003,
            dropout=self.dropout,
        )

    @property
    def alone(self) -> "Case":
        """The same training on one process, all sequences in one micro-batch."""
        plan = Plan(global_batch=self.plan.global_batch, micro_batch=self.plan.global_batch, precision="fp32")
        return Case(f"{self.model} {self.dtype} {self.dropout}", self.model, plan, self.dtype, self.dropout)


def case(name: str, model: str, *, dropout: float = 0.0, dtype: Dtype = "float64", **plan: Any) -> Case:
    """A case with so many micro-batches as `micro_batch` (1 if not given) leaves."""
    whole = Plan(**{"global_batch": GLOBAL_BATCH, "precision": "fp32", "overlap": ALL_OVERLAPS, **plan})
    return Case(name, model, whole, dtype, dropout)


CASES: tuple[Case, ...] = (
    # ---- one process, for what needs no other
    case("accumulation", "llama", micro_batch=2),
    case("recompute full", "gpt", recompute="full", micro_batch=4),
    case("recompute selective", "gemma", recompute="selective", micro_batch=4),
    case("experts accumulation", "capacity", micro_batch=2),
    # ---- two
    case("x", "llama", tensor_x=2, micro_batch=4),
    case("x dropout", "gpt", tensor_x=2, micro_batch=4, dropout=0.1),
    case("x sequence parallel", "gpt", tensor_x=2, sequence_parallel=True, micro_batch=4),
    case("x parallel block", "neox", tensor_x=2, micro_batch=8),
    case("y", "gpt", tensor_y=2, micro_batch=4, overlap=NO_OVERLAP),
    case("z", "llama", tensor_z=2, micro_batch=2),
    case("data", "gpt", data=2, micro_batch=2),
    case("zero 1", "gpt", data=2, zero_stage=1, micro_batch=4),
    case("zero 2", "llama", data=2, zero_stage=2, micro_batch=2),
    case("zero 3", "gpt", data=2, zero_stage=3, micro_batch=2),
    case("ring", "llama", context=2, micro_batch=4),
    case("ring selective dropout", "gpt", context=2, micro_batch=4, recompute="selective", dropout=0.1),
    case("all-to-all", "llama", context=2, context_kind="all-to-all", micro_batch=4),
    case("pipeline 1f1b tied", "gpt", pipeline=2, micro_batch=2),
    case("pipeline gpipe", "llama", pipeline=2, schedule="gpipe", micro_batch=2, overlap=NO_OVERLAP),
    case("pipeline interleaved", "gpt", pipeline=2, virtual_stages=2, micro_batch=2),
    case("expert", "moe", data=2, expert=2, micro_batch=4),
    case("expert tensor of x", "moe", tensor_x=2, expert_tensor=2, micro_batch=4),
    case("experts copied over x", "capacity", tensor_x=2, micro_batch=4),
    # ---- four
    case("x y", "gpt", tensor_x=2, tensor_y=2, micro_batch=4),
    case("x y parallel block", "gpt-j", tensor_x=2, tensor_y=2, micro_batch=4),
    case("x shares keys", "llama", tensor_x=4, micro_batch=8, sequence_parallel=True),
    case("y y four norms", "gemma", tensor_y=4, micro_batch=8, recompute="full", recompute_every=2),
    case("z data zero 3 full", "llama", tensor_z=2, data=2, zero_stage=3, micro_batch=1, recompute="full"),
    case("hybrid shards", "gpt", data=4, data_shard=2, zero_stage=3, micro_batch=2),
    case("hybrid shards of states", "llama", data=4, data_shard=2, zero_stage=1, micro_batch=1),
    case("replicas of one shard", "gpt", data=4, data_shard=1, zero_stage=2, micro_batch=2),
    case("ring of four", "llama", context=4, micro_batch=4, overlap=NO_OVERLAP),
    case("all-to-all of four", "llama", context=4, context_kind="all-to-all", micro_batch=4),
    case("pipeline uneven", "llama", pipeline=4, stage_layers=(1, 2, 1, 0), micro_batch=1),
    case("pipeline data zero 2", "gpt", pipeline=2, data=2, zero_stage=2, micro_batch=1),
    case(
        "expert z ring", "moe", tensor_z=2, context=2, expert=2, zero_stage=1, micro_batch=2, recompute="full"
    ),
    case("expert both", "moe", data=4, expert=2, expert_tensor=2, zero_stage=2, micro_batch=2),
    case("expert x pipeline", "moe", tensor_x=2, sequence_parallel=True, pipeline=2, expert=2, micro_batch=2),
    case("expert capacity ring", "capacity", tensor_x=2, sequence_parallel=True, context=2, expert=4, micro_batch=4),
    # ---- eight
    case(
        "x y z", "gpt", tensor_x=2, tensor_y=2, tensor_z=2, micro_batch=2, dropout=0.1,
        recompute="full", cached_layers=2,
    ),
    case(
        "x y z reversed order", "llama", tensor_x=2, tensor_y=2, tensor_z=2, micro_batch=4,
        rank_order=("pipeline", "data", "tensor_z", "context", "tensor_x", "tensor_y"),
    ),
    case(
        "x z data", "llama", tensor_x=2, tensor_z=2, data=2, zero_stage=1, sequence_parallel=True, micro_batch=1,
        rank_order=("tensor_z", "tensor_x", "tensor_y", "context", "pipeline", "data"),
    ),
    case(
        "x ring pipeline", "gpt", tensor_x=2, context=2, pipeline=2, virtual_stages=2, micro_batch=2,
        sequence_parallel=True, dropout=0.1,
    ),
    case(
        "x all-to-all zero 3", "llama", tensor_x=2, context=2, data=2, zero_stage=3, context_kind="all-to-all",
        micro_batch=2,
    ),
    case("z pipeline data", "gpt", tensor_z=2, pipeline=2, data=2, zero_stage=3, micro_batch=1, recompute="full"),
    case(
        "expert x z data", "moe", tensor_x=2, sequence_parallel=True, tensor_z=2, data=2, expert=4, zero_stage=3,
        micro_batch=1,
    ),
    case(
        "expert everything", "capacity", tensor_x=2, sequence_parallel=True, pipeline=2, data=2, expert=2,
        expert_tensor=2, zero_stage=1, micro_batch=2, dropout=0.1, recompute="selective",
    ),
)  # fmt: skip
"""By number of processes."""

_NARROW = ("x dropout", "zero 3", "ring", "pipeline 1f1b tied", "expert", "x y", "expert z ring", "x y z")

NARROW_CASES: tuple[Case, ...] = tuple(
    Case(f"{one.name} {dtype}", one.model, one.plan, dtype, one.dropout)
    for one in CASES
    if one.name in _NARROW
    for dtype in ("fp32", "bf16")
)
"""Some of them in fp32 and bf16."""
