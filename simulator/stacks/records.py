"""Plain record of a stack: the software that a job runs on. Stacks are data; no code asks for one by name."""

from dataclasses import dataclass
from typing import Literal


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


@dataclass(frozen=True, slots=True)
class Communication:
    """How the software communicates."""

    gradient_precision: Literal["fp32", "bf16", "fp16"]
    parameter_precision: Literal["bf16", "fp16", "fp32"]
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
    fragmentation: float
    """Part of the allocated bytes lost between blocks of the allocator."""
    source: str


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
    vocabulary_multiple: int
    """The vocabulary is padded to a multiple of this times the tensor group."""
    optimizer_kernels: Literal["fused", "for-each"]
    memory: Memory
    fitted: Fitted
    sources: tuple[str, ...]
