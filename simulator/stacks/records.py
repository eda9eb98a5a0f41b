"""Plain record of a stack: the software that a job runs on. Stacks are data; no code asks for one by name."""

from dataclasses import dataclass
from typing import Literal

from towtank.simulator.plan import Dimension


@dataclass(frozen=True, slots=True)
class Supports:
    """What the software can run. A plan beyond it is an error that says why."""

    tensor_y: bool
    tensor_z: bool
    context: tuple[str, ...]
    expert: bool
    expert_tensor: bool
    pipeline: bool
    uneven_stages: bool
    schedules: tuple[str, ...]
    virtual_stages: bool
    sequence_parallel: bool
    zero_stages: tuple[int, ...]
    zero_with_pipeline: tuple[int, ...]
    """ZeRO stages that work together with a pipeline."""
    recompute: tuple[str, ...]
    precisions: tuple[str, ...]
    overlaps: tuple[str, ...]
    """Overlap switches that the software has."""
    rank_orders: Literal["all"] | tuple[tuple[Dimension, ...], ...]
    """Orders in which the software lays dimensions on ranks, innermost first; dimensions of degree 1 do not count."""
    recompute_intervals: bool = True
    """Whether one layer in so many can be recomputed, or every layer only."""
    gradient_buckets: bool = False
    """Whether the size of gradient buckets can be chosen."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Which kernels the software launches."""

    attention: Literal["unfused", "triton", "flash2", "best"]
    """unfused: scores are written to memory; triton: FlashAttention in Triton as of 2022; flash2: FlashAttention-2;
    best: the fastest measured kernel."""
    fused_norm: bool
    fused_activation: bool
    """Bias, activation, dropout and residual addition in one pass each."""
    fused_rope: bool
    fused_cross_entropy: bool
    training_metrics: int
    """Metrics that compute the cross-entropy of each micro-batch once more, unfused and forward only."""
    dropout: bool
    fused_gradient_accumulation: bool
    """Weight-gradient multiplies add into the main gradient themselves."""
    selective_recompute: Literal["core", "alternate"]
    """What selective recomputation repeats: the attention core (Korthikanti et al.), or all that is cheap and every
    second multiply (PyTorch's selective checkpointing as torchtitan sets it)."""
    recompute_stops_early: bool
    """Recomputation of a layer ends with the last tensor that its backward pass needs: the down-projection of a
    dense MLP is not run again (torch.utils.checkpoint without reentry, since PyTorch 2.1)."""
    grouped_experts: bool
    """All local experts in one grouped multiply; otherwise one after the other."""
    fused_expert_bias: bool = True
    """Biases of experts are added, and a clamped activation is computed, inside the kernels beside them."""
    expert_launches: int = 0
    """Small kernels of router and dispatch in one pass of a layer with experts, launched one after the other. The
    device waits for them: the host cannot run ahead, because it must read how many tokens each expert got."""
    launches_per_expert: int = 0
    """The same for each local expert where multiplies are in a narrow precision: quantisation of its tokens."""


@dataclass(frozen=True, slots=True)
class Communication:
    """How the software communicates."""

    gradient_precision: Literal["fp32", "bf16", "fp16"]
    parameter_precision: Literal["bf16", "fp16", "fp32", "working"]
    """Precision in which weights are gathered; working: that of the activations."""
    overlaps: tuple[str, ...]
    """Overlap switches that are on unless the plan says otherwise."""
    algorithms: tuple[str, ...]
    """Algorithms of its collective library: ring, tree, recursive, hierarchical."""
    scatter_gather_sends: bool
    """Stage inputs are sent in parts by the tensor group and gathered on arrival (SC'21, section 4.1)."""
    shard_unit: Literal["linear", "layer"]
    """What one all-gather over the weight shards brings: one linear layer (AxoNN) or one whole layer (FSDP)."""
    shard_embedding: bool
    """Whether embedding and head are sharded too."""
    regather_in_backward: bool
    """Weights are gathered again for the backward pass."""
    pipeline_keeps_gathered: bool
    """With a pipeline, ZeRO 3 keeps weights gathered and gradients whole from the first to the last micro-batch."""
    unit_copies: Literal["none", "cast", "both"]
    """Kernels around the collectives of a layer's weights. cast: gradients are cast where they are reduced in another
    precision than they come in (FSDP 1: its flat parameter is the buffer); both: gathered weights are copied out of
    the buffer and gradients into it (FSDP 2: each parameter has memory of its own)."""
    distributed_norm: bool
    """Norm statistics are reduced over y (two numbers per token)."""
    reduce_every_micro_batch: bool
    """ZeRO 2 and 3 reduce gradients after each micro-batch instead of once per step."""
    meeting_time_s: float
    """Time that a collective of the tensor group waits for its members to arrive, for each member but the first."""
    shards_in_lists: bool
    """Collectives of weight shards take a list with a tensor for each member: the host makes a view of each and
    launches a copy of each, one after the other."""
    narrow_gathers: bool
    """Under 8 and 4 bits, what a linear layer gathers over x is cast first, by each rank its part, and travels so."""
    expert_multicast: bool = False
    """A token goes to each device, and through the network to each node, once, however many of its experts are
    there (DeepEP, HybridEP); an all-to-all of NCCL sends every copy."""
    scatters_under_way: int = 1
    """Reductions of weight gradients over the shards that may be under way while the next gradient is computed."""
    collectives_by_chunk: bool = False
    """In a pipeline, overlapped collectives of parameters and gradients begin chunk by chunk, on all stages together,
    instead of layer by layer (`schedules.expand`)."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The few parameters fitted to published runs, shared by all runs of the stack."""

    compute_efficiency: float
    """Rate of kernels inside a training step over the rate of the measured curves."""
    compute_slowdown: float
    """Slow-down of kernels while a collective runs beside them."""
    network_efficiency: float
    """Rate of inter-node collectives in a step over that of the machine's benchmark."""
    source: str


@dataclass(frozen=True, slots=True)
class Host:
    """Time of the host for the calls of tensor-parallel collectives (its interpreter, process groups, waits between
    members). It runs beside the device: a pass takes the longer of the two."""

    tensor_call_s: float
    """Of one call, in a job without pipeline; 0 where it is hidden."""
    tensor_call_in_pipeline_s: float
    """Of one call for each member of the group, in a job with a pipeline."""
    source: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory besides tensors."""

    context_bytes: float
    """Device context, libraries and communicator buffers."""
    keeps_gathered_inputs: bool
    """Under sequence parallelism the all-gathered input of a linear layer is kept for its weight gradient; otherwise
    a rank keeps its own part and gathers again (Korthikanti et al., arXiv 2205.05198, section 4.2.2)."""
    weights_at_rest: Literal["working", "master"]
    """Under ZeRO 3: whether the sharded weights are kept in working precision beside a master, or only as master."""
    accumulation_precision: Literal["fp32", "none"]
    """A second copy of all gradients in which micro-batches are added up, beside the one that travels."""
    working_gradients: bool
    """Gradients of a micro-batch exist in working precision beside the main ones: as tensors of their own until they
    are added up, and, where there are replicas, in the buckets of PyTorch's DistributedDataParallel."""
    keeps_last_logits: bool
    """Under tensor parallelism the logits of a micro-batch and their softmax are still there when those of the next
    are made."""
    shard_buckets_bytes: float
    """Buckets in which gradients of sharded states are reduced and weights gathered."""
    fragmentation: float
    """Part of the allocated bytes lost between blocks of the allocator."""
    fragments: Literal["everything", "activations"]
    """What that part is of. States in a few flat buffers are allocated once and do not fragment; of activations those
    gathered over tensor ranks, blocks of one size, do not either."""
    source: str
    sharded_weights_apart: bool = False
    """Under ZeRO 1 and 2 a device keeps the weights whose states it has once more beside the weights in use: what it
    updates and sends."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The software that the job runs on."""

    name: str
    description: str
    supports: Supports
    kernels: Kernels
    communication: Communication
    launch_overhead_s: float
    """Time between kernels that the device does not hide."""
    step_overhead_s: float
    """Time per step outside forward, backward and optimizer: data loading, logging, host synchronisation."""
    stage_balance: Literal["layers", "weights"]
    """What pipeline stages get equal parts of unless the plan says otherwise."""
    vocabulary_multiple: int
    """The vocabulary is padded to a multiple of this times the tensor group."""
    optimizer_kernels: Literal["fused", "for-each"]
    host: Host
    memory: Memory
    fitted: Fitted
    sources: tuple[str, ...]
