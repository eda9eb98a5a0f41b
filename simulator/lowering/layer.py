"""Templates of one transformer layer: forward, recompute and backward."""

from dataclasses import replace
from functools import lru_cache

from towtank.kernels import passes
from towtank.kernels.counts import BYTES_PER_ELEMENT
from towtank.simulator.groups import expert_mapped
from towtank.simulator.lowering.attention import (
    attention_linears,
    backward_attention,
    forward_attention,
    norm_passes,
    reduce_statistics,
    rotary,
)
from towtank.simulator.lowering.feed_forward import (
    activation,
    backward_dense,
    backward_experts,
    dense_linears,
    expert_weights,
    forward_dense,
    forward_experts,
)
from towtank.simulator.lowering.linear import Linear, forward_linear
from towtank.simulator.lowering.selective import repeated_multiplies
from towtank.simulator.lowering.sizes import Sizes
from towtank.simulator.lowering.template import Template
from towtank.simulator.models.layers import is_expert_layer, layer_window
from towtank.simulator.operations import PREVIOUS, After, Elementwise, Message, Operation, Phase, Stream


def layer_kind(sizes: Sizes, layer: int) -> tuple[bool, int | None]:
    """What distinguishes one layer from another: whether it has experts, and its attention window."""
    return is_expert_layer(sizes.model, layer), layer_window(sizes.model, layer)


@lru_cache(maxsize=512)
def local_layer_weights(sizes: Sizes, experts: bool) -> tuple[int, int]:
    """Weights of one layer on a device while in use: (all but routed experts, routed experts)."""
    template = Template(sizes, Phase.FORWARD)
    model = sizes.model
    before, after = attention_linears(template)
    dense = sum(linear.weights for linear in before) + after.weights + model.norms_per_layer * sizes.hidden
    if not experts or model.experts is None:
        up, down = dense_linears(template, model.mlp.hidden, gated=model.mlp.gated)
        return dense + up.weights + down.weights, 0
    moe = model.experts
    dense += moe.num_experts * model.hidden
    if moe.shared_hidden:
        up, down = dense_linears(template, moe.shared_hidden, gated=moe.gated)
        dense += up.weights + down.weights
    return dense, expert_weights(template, moe)


def largest_linear(sizes: Sizes, experts: bool) -> int:
    """Weights of the largest linear layer that every token visits, on a device while in use."""
    return max(linear.weights for linear in _linears(sizes, experts))


def num_linears(sizes: Sizes, experts: bool) -> int:
    """Linear layers of one layer; its routed experts count as one."""
    return len(_linears(sizes, experts)) + experts


def _linears(sizes: Sizes, experts: bool) -> list[Linear]:
    """Linear layers that every token visits."""
    template, model = Template(sizes, Phase.FORWARD), sizes.model
    before, after = attention_linears(template)
    linears = [*before, after]
    if not experts or model.experts is None:
        linears += dense_linears(template, model.mlp.hidden, gated=model.mlp.gated)
    elif model.experts.shared_hidden:
        linears += dense_linears(template, model.experts.shared_hidden, gated=model.experts.gated)
    return linears


def _unit_messages(
    template: Template, kind: tuple[bool, int | None], collective: str
) -> list[tuple[str, Message]]:
    """One message for all weights of a layer, and one for its routed experts where they have a group of their own."""
    dense, experts = local_layer_weights(template.sizes, kind[0])
    if not expert_mapped(template.sizes.plan):
        dense, experts = dense + experts, 0
    size = template.weight_bytes if collective == "all-gather" else template.scatter_bytes
    messages = [("weights", Message(collective, "weight_shard", size(dense)))]
    if experts:
        messages.append(("experts.weights", Message(collective, "expert_shard", size(experts))))
    return messages


def gather_layer(template: Template, kind: tuple[bool, int | None]) -> None:
    """FSDP: one all-gather brings a whole layer, prefetched one layer ahead where the overlap is on."""
    sizes = template.sizes
    if sizes.plan.weight_shards == 1 or sizes.stack.communication.shard_unit != "layer":
        return
    if template.phase is Phase.RECOMPUTE and sizes.pipeline_keeps_gathered:
        return
    after = (After(-1, 2),) if sizes.overlap.all_gather else (PREVIOUS,)
    for name, message in _unit_messages(template, kind, "all-gather"):
        template.collective(f"{name}.all-gather", Stream.GATHER, message, after=after)
        if sizes.stack.communication.unit_copies == "both":
            template.compute(f"{name}.copy-out", Elementwise(2 * message.bytes, 1, "copy.forward"))


def scatters_in_pass(sizes: Sizes) -> bool:
    """Whether gradients are reduced over the weight shards in each backward pass rather than once per step."""
    if sizes.plan.weight_shards == 1 or sizes.pipeline_keeps_gathered:
        return False
    communication = sizes.stack.communication
    by_linear = communication.shard_unit == "linear"
    return by_linear or communication.reduce_every_micro_batch or sizes.plan.tensor_z > 1


def scatter_layer(template: Template, kind: tuple[bool, int | None]) -> None:
    """FSDP: one reduce-scatter takes the gradients of a whole layer, behind its backward pass."""
    sizes = template.sizes
    if sizes.stack.communication.shard_unit != "layer" or not scatters_in_pass(sizes):
        return
    for name, message in _unit_messages(template, kind, "reduce-scatter"):
        _copy_in(template, name, message)
        blocking = not sizes.overlap.reduce_scatter
        template.collective(f"{name}.reduce-scatter", Stream.SCATTER, message, blocking=blocking)


def _copy_in(template: Template, name: str, message: Message) -> None:
    """Gradients read as they were computed and written as they are reduced, one kernel for the layer."""
    sizes = template.sizes
    computed = message.bytes / _gradient_bytes(sizes) * sizes.element_bytes
    policy = sizes.stack.communication.unit_copies
    if policy == "both" or (policy == "cast" and computed != message.bytes):
        template.compute(f"{name}.copy-in", Elementwise(computed + message.bytes, 1, "copy.backward"))


def _gradient_bytes(sizes: Sizes) -> float:
    return BYTES_PER_ELEMENT[sizes.plan.gradient_precision or sizes.stack.communication.gradient_precision]


def _norm(template: Template, name: str, *, backward: bool) -> None:
    sizes = template.sizes
    template.elementwise(name, sizes.norm_tokens * sizes.hidden, norm_passes(sizes), backward=backward)
    reduce_statistics(template, name)


def _residual(template: Template, name: str, *, backward: bool) -> None:
    sizes = template.sizes
    elements = sizes.norm_tokens * sizes.hidden
    fused, dropout = sizes.stack.kernels.fused_activation, sizes.stack.kernels.dropout
    kind = passes.RESIDUAL_FUSED if fused else passes.RESIDUAL_UNFUSED
    template.elementwise(name, elements, kind, backward=backward)
    if dropout:
        mask = passes.DROPOUT_MASK if fused else passes.DROPOUT_UNFUSED
        template.elementwise(f"{name}.dropout", elements, mask, backward=backward)


def _emit_forward(template: Template, kind: tuple[bool, int | None]) -> None:
    model = template.sizes.model
    gather_layer(template, kind)
    _norm(template, "attention.norm", backward=False)
    forward_attention(template, kind[1], reduce=not model.parallel_block)
    if not model.parallel_block:
        _residual(template, "attention.residual", backward=False)
    if model.norms_per_layer > 1:
        _norm(template, "mlp.norm", backward=False)
    for extra in range(model.norms_per_layer - 2):
        _norm(template, f"post.{extra}.norm", backward=False)
    if kind[0] and model.experts is not None:
        forward_experts(template, model.experts)
    else:
        again = template.phase is Phase.RECOMPUTE
        stop_early = again and template.sizes.stack.kernels.recompute_stops_early
        forward_dense(template, model.mlp.hidden, gated=model.mlp.gated, stop_early=stop_early)
        if stop_early:
            return
    _residual(template, "mlp.residual", backward=False)


def _emit_alternate(template: Template, kind: tuple[bool, int | None]) -> None:
    """Selective checkpointing as torchtitan sets it: all that is cheap, and every second multiply."""
    sizes, model = template.sizes, template.sizes.model
    repeated = {linear.name: linear for linear in repeated_multiplies(template, experts=kind[0])}
    after = attention_linears(template)[1]
    _norm(template, "attention.norm", backward=False)
    for name, linear in repeated.items():
        if name.startswith("attention") and name != after.name:
            forward_linear(template, linear, sizes.tokens, prefetch_across=False)
    rotary(template, backward=False)
    if after.name in repeated:
        # the sum over the tensor group is on the list of what is kept
        alone = replace(repeated[after.name], reduce_forward=False)
        forward_linear(template, alone, sizes.tokens, prefetch_across=False)
    if model.norms_per_layer > 1:
        _norm(template, "mlp.norm", backward=False)
    if kind[0]:
        return  # the routed tokens are kept: sending them again would cost more than they take
    up, down = dense_linears(template, model.mlp.hidden, gated=model.mlp.gated)
    if up.name in repeated:
        forward_linear(template, repeated[up.name], sizes.tokens, prefetch_across=False)
    activation(template, sizes.tokens * down.inputs, gated=model.mlp.gated, backward=False)


@lru_cache(maxsize=512)
def forward_template(sizes: Sizes, kind: tuple[bool, int | None]) -> tuple[Operation, ...]:
    """Forward pass of one layer."""
    template = Template(sizes, Phase.FORWARD)
    _emit_forward(template, kind)
    return template.build()


def _is_selective(sizes: Sizes, recompute: bool, policy: str) -> bool:
    """Whether the layer is under the stack's selective policy and this is the one."""
    selective = sizes.plan.recompute == "selective" and not recompute
    return selective and sizes.stack.kernels.selective_recompute == policy


@lru_cache(maxsize=512)
def backward_template(
    sizes: Sizes, kind: tuple[bool, int | None], recompute: bool, cached: bool = False
) -> tuple[Operation, ...]:
    """Backward pass of one layer, after the recomputed forward where the plan says so.

    `cached`: recomputation finds the weights of the forward pass still gathered.
    """
    template = Template(sizes, Phase.RECOMPUTE if recompute else Phase.BACKWARD, cached=cached)
    model = sizes.model
    if recompute:
        _emit_forward(template, kind)
        template.phase = Phase.BACKWARD
    elif sizes.regathers:
        gather_layer(template, kind)
    alternate = _is_selective(sizes, recompute, "alternate")
    if alternate:
        template.phase = Phase.RECOMPUTE
        _emit_alternate(template, kind)
        template.phase = Phase.BACKWARD
    # weights gathered for the recomputed forward are still there
    regather = sizes.regathers and not recompute
    _residual(template, "mlp.residual", backward=True)
    if kind[0] and model.experts is not None:
        backward_experts(template, model.experts, regather=regather)
    else:
        backward_dense(template, model.mlp.hidden, gated=model.mlp.gated, regather=regather)
    for extra in range(model.norms_per_layer - 2):
        _norm(template, f"post.{extra}.norm", backward=True)
    if model.norms_per_layer > 1:
        _norm(template, "mlp.norm", backward=True)
    if not model.parallel_block:
        _residual(template, "attention.residual", backward=True)
    core_again = _is_selective(sizes, recompute, "core")
    backward_attention(template, kind[1], regather=regather, recompute_core=core_again)
    _norm(template, "attention.norm", backward=True)
    scatter_layer(template, kind)
    return template.build()
