"""Feed-forward part of a layer: dense, or routed and shared experts."""

from towtank.kernels import passes
from towtank.simulator.groups import expert_mapped, expert_weight_shards
from towtank.simulator.lowering.linear import (
    MAIN_GRADIENT_ADD,
    Linear,
    backward_linear,
    forward_linear,
    normal,
    transposed,
)
from towtank.simulator.lowering.sizes import NARROW_PRECISIONS
from towtank.simulator.lowering.template import Template
from towtank.simulator.models.records import Experts
from towtank.simulator.operations import PREVIOUS, After, Elementwise, Message, Phase, Stream


def dense_linears(
    template: Template, hidden: int, *, gated: bool, name: str = "mlp"
) -> tuple[Linear, Linear]:
    """Up-projection (both halves of a gated one together) and down-projection."""
    model = template.sizes.model
    # in a parallel block the attention part gathers the input and reduces its gradient for both
    up = normal(
        template,
        f"{name}.up",
        model.hidden,
        hidden * (2 if gated else 1),
        reduce_backward=not model.parallel_block,
    )
    return up, transposed(template, f"{name}.down", hidden, model.hidden)


def activation(
    template: Template, elements: float, *, gated: bool, backward: bool, name: str = "mlp"
) -> None:
    """Activation function over its outputs."""
    fused = template.sizes.stack.kernels.fused_activation
    if gated:
        kind = passes.GATED_FUSED if fused else passes.GATED_UNFUSED
    else:
        kind = passes.ACTIVATION_FUSED if fused else passes.ACTIVATION_UNFUSED
    template.elementwise(f"{name}.activation", elements, kind, backward=backward)


def forward_dense(
    template: Template, hidden: int, *, gated: bool, name: str = "mlp", stop_early: bool = False
) -> None:
    """Forward of a dense feed-forward part of `hidden` features; `stop_early` leaves out the down-projection."""
    sizes = template.sizes
    across = template.phase is not Phase.RECOMPUTE
    up, down = dense_linears(template, hidden, gated=gated, name=name)
    forward_linear(template, up, sizes.tokens, prefetch_across=across)
    activation(template, sizes.tokens * down.inputs, gated=gated, backward=False, name=name)
    if not stop_early:
        forward_linear(template, down, sizes.tokens, prefetch_across=across)


def backward_dense(
    template: Template, hidden: int, *, gated: bool, regather: bool, name: str = "mlp"
) -> None:
    """Backward of a dense feed-forward part."""
    sizes = template.sizes
    up, down = dense_linears(template, hidden, gated=gated, name=name)
    backward_linear(template, down, sizes.tokens, regather=regather)
    activation(template, sizes.tokens * down.inputs, gated=gated, backward=True, name=name)
    backward_linear(template, up, sizes.tokens, regather=regather)


OVERLAPPED_LAUNCHES = 2
"""Launches that the host issues in one pass over those of a layer alone where exchanges overlap: forward and backward
pass of two micro-batches take turns in parts ("EP Overlap brings extra cpu overhead and may cause GPU bubble",
NVIDIA/Megatron-LM pull request 2184). Fitted to 13 published runs of Qwen3 without CUDA graphs."""


class ExpertSizes:
    """Sizes of one device's routed experts."""

    def __init__(self, template: Template, experts: Experts) -> None:
        sizes = template.sizes
        plan = sizes.plan
        self.experts = experts
        self.local = experts.num_experts // plan.expert
        """Experts held by a device."""
        # under sequence parallelism each rank of x routes its own tokens; otherwise the tokens of x are copies
        self.routed_tokens = sizes.tokens // plan.tensor_x if plan.tensor_x > 1 else sizes.tokens
        load = experts.imbalance
        if experts.capacity_factor is not None:
            load = min(load, experts.capacity_factor)
        self.sent = self.routed_tokens * experts.top_k
        """Token copies that a device sends."""
        self.received = int(self.sent * load) * plan.expert_tensor
        """Token copies that the busiest device handles, after gathering over the expert-tensor group."""
        self.tokens_per_expert = max(1, self.received // self.local)
        self.features = experts.hidden // plan.expert_tensor
        self.up = self.features * (2 if experts.gated else 1)


def _exchange(template: Template, name: str, sizes: ExpertSizes) -> tuple[After, ...]:
    """All-to-all over the expert group.

    Where it overlaps, that of another micro-batch stands for it: it runs beside the whole layer, which ends with it.
    """
    plan, width = template.sizes.plan, template.sizes.model.hidden * template.sizes.element_bytes
    if plan.expert == 1:
        return ()
    once = template.sizes.stack.communication.expert_multicast
    message = Message("all-to-all", "expert", sizes.sent * width, sizes.experts.top_k if once else 0)
    beside = template.sizes.overlap.expert
    return template.collective(
        f"experts.{name}.all-to-all",
        Stream.EXPERT,
        message,
        blocking=not beside,
        after=(PREVIOUS,) if beside else None,
    )


def _dispatch(template: Template, name: str, sizes: ExpertSizes) -> tuple[After, ...]:
    """Send tokens to their experts: all-to-all over the expert group, all-gather over the expert-tensor group."""
    plan, width = template.sizes.plan, template.sizes.model.hidden * template.sizes.element_bytes
    sent = _exchange(template, name, sizes)
    if plan.expert_tensor > 1:
        message = Message("all-gather", "expert_tensor", sizes.received * width)
        template.collective(f"experts.{name}.all-gather", Stream.EXPERT, message)
    return sent


def _combine(template: Template, name: str, sizes: ExpertSizes) -> tuple[After, ...]:
    """The way back, in reverse order."""
    plan, width = template.sizes.plan, template.sizes.model.hidden * template.sizes.element_bytes
    if plan.expert_tensor > 1:
        message = Message("reduce-scatter", "expert_tensor", sizes.received * width)
        template.collective(f"experts.{name}.reduce-scatter", Stream.EXPERT, message)
    return _exchange(template, name, sizes)


def _wait_for_exchange(template: Template, beside: tuple[After, ...]) -> None:
    """End of a layer: exchanges that ran beside it."""
    if template.sizes.overlap.expert:
        template.wait(*beside)


def _launches(template: Template, sizes: ExpertSizes) -> None:
    """Small kernels of router, dispatch and quantisation that the device waits for."""
    kernels = template.sizes.stack.kernels
    narrow = template.sizes.plan.precision in NARROW_PRECISIONS
    count = kernels.expert_launches + kernels.launches_per_expert * sizes.local * narrow
    if template.sizes.overlap.expert and template.sizes.plan.expert > 1:
        count *= OVERLAPPED_LAUNCHES
    if count:
        template.compute("experts.launches", Elementwise(0.0, count))


def _bias(template: Template, sizes: ExpertSizes, *, backward: bool) -> None:
    """Biases of the down-projection and the clamp of the activation, where no kernel does them on the way."""
    if not sizes.experts.bias or template.sizes.stack.kernels.fused_expert_bias:
        return
    tokens = sizes.tokens_per_expert * sizes.local
    template.elementwise("experts.clamp", tokens * sizes.up, passes.CLAMPED, backward=backward)
    width = template.sizes.model.hidden
    template.elementwise("experts.bias", tokens * width, passes.EXPERT_BIAS, backward=backward)


def _gather_tokens(template: Template, name: str) -> None:
    """Without sequence parallelism every rank of x needs the results of all tokens, of which it routed its part."""
    sizes = template.sizes
    if sizes.plan.tensor_x > 1 and not sizes.sequence_split:
        size = sizes.tokens * sizes.model.hidden * sizes.element_bytes
        template.collective(
            f"experts.{name}.all-gather", Stream.TENSOR, Message("all-gather", "tensor_x", size)
        )


def expert_weights(template: Template, experts: Experts) -> int:
    """Weights of the routed experts that a device holds while in use."""
    plan = template.sizes.plan
    one = (3 if experts.gated else 2) * template.sizes.model.hidden * (experts.hidden // plan.expert_tensor)
    return one * (experts.num_experts // plan.expert)


def _shard_group(template: Template) -> str:
    """Group over which expert weights are sharded where each linear layer is gathered; empty if none."""
    plan = template.sizes.plan
    if template.sizes.stack.communication.shard_unit != "linear" or expert_weight_shards(plan) == 1:
        return ""
    return "expert_shard" if expert_mapped(plan) else "weight_shard"


def _gather_experts(template: Template, experts: Experts) -> None:
    if group := _shard_group(template):
        size = template.weight_bytes(expert_weights(template, experts))
        after = template.before_last_multiply(across=True) if template.sizes.overlap.all_gather else None
        message = Message("all-gather", group, size)
        template.collective("experts.weight.all-gather", Stream.GATHER, message, after=after)


def _reduce_experts(template: Template, experts: Experts) -> None:
    weights = expert_weights(template, experts)
    if group := _shard_group(template):
        message = Message("reduce-scatter", group, template.scatter_bytes(weights))
        blocking = not template.sizes.overlap.reduce_scatter
        template.collective(
            "experts.weight.reduce-scatter", template.scatter_stream, message, blocking=blocking
        )
    if not template.sizes.stack.kernels.fused_gradient_accumulation:
        elements = weights / expert_weight_shards(template.sizes.plan)
        template.elementwise("experts.gradient-add", elements, MAIN_GRADIENT_ADD, backward=True)


def _grouped(template: Template, name: str, role: str, outputs: int, inputs: int, sizes: ExpertSizes) -> None:
    """Multiplies of all local experts, in one grouped kernel or one after the other."""
    tokens = sizes.tokens_per_expert
    shape = (outputs, inputs, tokens) if role == "wgrad" else (tokens, outputs, inputs)
    if template.sizes.stack.kernels.grouped_experts:
        layer = (template.sizes.model.hidden, sizes.features) if sizes.experts.gated else None
        template.matmul(name, role, shape, sizes.local, layer=layer)
        return
    for expert in range(sizes.local):
        template.matmul(f"{name}.{expert}", role, shape)


def forward_experts(template: Template, experts: Experts) -> None:
    """Router, dispatch, experts, combine; shared experts run as a dense part."""
    sizes, hidden = ExpertSizes(template, experts), template.sizes.model.hidden
    _gather_experts(template, experts)
    template.matmul(
        "experts.router", "forward", (sizes.routed_tokens, experts.num_experts, hidden), narrow=False
    )
    _launches(template, sizes)
    template.elementwise("experts.permute", sizes.sent * hidden, passes.PERMUTE)
    beside = _dispatch(template, "dispatch", sizes)
    _grouped(template, "experts.up", "forward", sizes.up, hidden, sizes)
    elements = sizes.tokens_per_expert * sizes.local * sizes.features
    activation(template, elements, gated=experts.gated, backward=False, name="experts")
    _grouped(template, "experts.down", "forward", hidden, sizes.features, sizes)
    _bias(template, sizes, backward=False)
    beside += _combine(template, "combine", sizes)
    template.elementwise("experts.unpermute", sizes.sent * hidden, passes.PERMUTE)
    _gather_tokens(template, "output")
    if experts.shared_hidden:
        forward_dense(template, experts.shared_hidden, gated=experts.gated, name="shared")
    _wait_for_exchange(template, beside)


def backward_experts(template: Template, experts: Experts, *, regather: bool) -> None:
    """Backward of the expert part, in reverse order."""
    sizes, hidden = ExpertSizes(template, experts), template.sizes.model.hidden
    if experts.shared_hidden:
        backward_dense(template, experts.shared_hidden, gated=experts.gated, regather=regather, name="shared")
    if regather:
        _gather_experts(template, experts)
    template.elementwise("experts.unpermute", sizes.sent * hidden, passes.PERMUTE, backward=True)
    _launches(template, sizes)
    beside = _dispatch(template, "dispatch-gradient", sizes)
    _bias(template, sizes, backward=True)
    _grouped(template, "experts.down", "dgrad", sizes.features, hidden, sizes)
    _grouped(template, "experts.down", "wgrad", hidden, sizes.features, sizes)
    elements = sizes.tokens_per_expert * sizes.local * sizes.features
    activation(template, elements, gated=experts.gated, backward=True, name="experts")
    _grouped(template, "experts.up", "dgrad", hidden, sizes.up, sizes)
    _grouped(template, "experts.up", "wgrad", sizes.up, hidden, sizes)
    _reduce_experts(template, experts)
    beside += _combine(template, "combine-gradient", sizes)
    template.elementwise("experts.permute", sizes.sent * hidden, passes.PERMUTE, backward=True)
    shape = (sizes.routed_tokens, hidden, experts.num_experts)
    template.matmul("experts.router", "dgrad", shape, narrow=False)
    template.matmul(
        "experts.router", "wgrad", (experts.num_experts, hidden, sizes.routed_tokens), narrow=False
    )
    _gather_tokens(template, "gradient")
    _wait_for_exchange(template, beside)
