"""The plan: one complete parallel configuration of a training step."""

from dataclasses import dataclass
from typing import Literal

Dimension = Literal["tensor_x", "tensor_y", "tensor_z", "context", "data", "pipeline"]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"]
Recompute = Literal["none", "selective", "full"]
ScheduleName = Literal["gpipe", "1f1b", "interleaved"]

DEFAULT_RANK_ORDER: tuple[Dimension, ...] = (
    "tensor_y", "tensor_x", "context", "tensor_z", "data", "pipeline",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Overlap:
    """What communication runs beside compute. None: what the stack does by itself."""

    data_gradients: bool | None = None
    """Reduction of gradients over data under the last backward pass."""
    parameter_gather: bool | None = None
    """All-gather of updated parameters (ZeRO 1, 2) under the first forward pass."""
    tensor: bool | None = None
    """Collectives of sequence parallelism under the multiplies beside them."""
    backward_all_reduce: bool | None = None
    """AxoNN's OAR: all-reduce of input gradients over x under the same layer's weight-gradient multiply."""
    reduce_scatter: bool | None = None
    """AxoNN's ORS: reduce-scatter of weight gradients over the shards under the rest of the backward pass."""
    all_gather: bool | None = None
    """AxoNN's OAG: all-gather of the next weights over the shards under the present layer."""
    pipeline: bool | None = None
    """Sends between pipeline stages under compute."""
    expert: bool | None = None
    """Exchange of tokens between experts under the compute of another micro-batch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Degrees and switches of a parallel configuration.

    The tensor grid is AxoNN's by role (Singh et al., SC'24, Algorithm 1): a normal linear layer splits its output
    features over x (all-reduce of input gradients in the backward pass) and its input features over y
    (all-reduce of outputs in the forward pass); every second layer swaps the two. z splits the batch and holds
    weights in shards that are gathered for use. Megatron tensor parallelism is x alone, FSDP is z alone.

    `micro_batch` counts the sequences that one device handles at once, so
    global_batch = micro_batch x num_micro_batches x data x tensor_z. (Megatron-AxoNN's micro-batch is
    micro_batch x tensor_z of this plan.)
    """

    tensor_x: int = 1
    tensor_y: int = 1
    tensor_z: int = 1
    data: int = 1
    data_shard: int | None = None
    """Part of `data` over which states are sharded; the rest holds replicas (HSDP). None: all of it."""
    zero_stage: int = 0
    """0: DDP; 1: optimizer states sharded; 2: gradients too; 3: weights too (FSDP)."""
    sequence_parallel: bool = False
    pipeline: int = 1
    virtual_stages: int = 1
    schedule: ScheduleName | None = None
    """None: 1F1B, or interleaved 1F1B where virtual_stages > 1."""
    stage_layers: tuple[int, ...] | None = None
    """Layers of each chunk in model order (pipeline x virtual_stages numbers). None: as even as possible."""
    context: int = 1
    context_kind: Literal["ring", "all-to-all"] = "ring"
    expert: int = 1
    expert_tensor: int = 1
    micro_batch: int = 1
    global_batch: int = 1
    sequence: int | None = None
    """Tokens of one sequence. None: the model's."""
    recompute: Recompute = "none"
    recompute_every: int = 1
    """Recompute one layer in so many."""
    cached_layers: int = 0
    """The first so many layers keep their gathered weights from the forward pass for recomputation and backward
    pass (AxoNN's --num-layers-for-caching-weights-in-depth-tensor-parallel-all-gather)."""
    precision: Precision = "bf16"
    gradient_precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision in which gradients are kept and reduced. None: what the stack does."""
    master_precision: Literal["fp32", "bf16", "none"] = "fp32"
    gradient_bucket: int | None = None
    """Weights of a device whose gradients are reduced over data in one message, and, under ZeRO 1 and 2, that are
    gathered in one. None: those of each layer where that overlaps with a pass, else all in one."""
    overlap: Overlap = Overlap()
    rank_order: tuple[Dimension, ...] = DEFAULT_RANK_ORDER
    """Dimensions from the innermost (neighbouring ranks) to the outermost."""

    @property
    def num_devices(self) -> int:
        """Devices that the plan occupies."""
        return self.tensor_x * self.tensor_y * self.tensor_z * self.context * self.data * self.pipeline

    @property
    def shard_degree(self) -> int:
        """Devices of `data` over which states are sharded; 1 under DDP."""
        if self.zero_stage == 0:
            return 1
        return self.data if self.data_shard is None else self.data_shard

    @property
    def replicate_degree(self) -> int:
        """Replicas of each shard over `data`."""
        return self.data // self.shard_degree

    @property
    def weight_shards(self) -> int:
        """Devices over which a weight at rest is split besides x and y: z, and data and context under ZeRO 3."""
        return self.tensor_z * (self.shard_degree * self.context if self.zero_stage == 3 else 1)

    @property
    def state_shards(self) -> int:
        """Devices over which optimizer states are split besides x and y."""
        return self.tensor_z * (self.shard_degree * self.context if self.zero_stage else 1)

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches between two optimizer steps."""
        return self.global_batch // (self.micro_batch * self.data * self.tensor_z)

    @property
    def passes_meet(self) -> bool:
        """Whether forward and backward pass of two micro-batches meet on a device: in a pipeline only where chunks
        interleave (Megatron-LM asks for virtual stages there, arguments.py, overlap_moe_expert_parallel_comm)."""
        return self.pipeline == 1 or self.virtual_stages > 1

    @property
    def schedule_name(self) -> ScheduleName:
        """Pipeline schedule in force."""
        if self.schedule is not None:
            return self.schedule
        return "interleaved" if self.virtual_stages > 1 else "1f1b"

    def degree(self, dimension: Dimension) -> int:
        """Size of one dimension."""
        size: int = getattr(self, dimension)
        return size

    def stride(self, dimension: Dimension) -> int:
        """Distance in ranks between neighbours along a dimension: the product of the inner degrees."""
        stride = 1
        for inner in self.rank_order:
            if inner == dimension:
                return stride
            stride *= self.degree(inner)
        raise KeyError(dimension)
