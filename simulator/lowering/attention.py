"""Attention part of a layer: projections, rotary embedding, the core, context parallelism."""

from towtank.kernels import passes
from towtank.kernels.counts import attention_flop, mean_keys
from towtank.simulator.lowering.linear import Linear, backward_linear, forward_linear, normal, transposed
from towtank.simulator.lowering.sizes import Sizes, activation_precision, local_heads
from towtank.simulator.lowering.template import Template
from towtank.simulator.models.records import Attention
from towtank.simulator.operations import After, AttentionCore, Matmul, Message, Phase, Stream

ALIGNED_ELEMENTS = 8
"""16-bit elements in the 16 bytes by which tensor cores load rows (NVIDIA, Matrix Multiplication Background)."""


def attention_linears(template: Template, *, reduce: bool = True) -> tuple[list[Linear], Linear]:
    """Projections before the core, and the one after it. `reduce` False leaves the sum to the parallel MLP."""
    sizes = template.sizes
    model, plan = sizes.model, sizes.plan
    attention = model.attention
    if isinstance(attention, Attention):
        heads, kv_heads = local_heads(attention, plan.tensor_x)
        qkv_out = (heads + 2 * kv_heads) * attention.head_dim * plan.tensor_x
        width = attention.heads * attention.head_dim
        return [normal(template, "attention.qkv", model.hidden, qkv_out)], transposed(
            template, "attention.output", width, model.hidden, reduce_forward=reduce
        )
    # latent attention: the down-projections are copied over x, the up-projections are split (arXiv 2405.04434)
    heads, down = attention.heads, attention.kv_rank + attention.rope_head_dim
    query_width = heads * (attention.nope_head_dim + attention.rope_head_dim)
    before = []
    if attention.q_rank is None:
        before.append(normal(template, "attention.query", model.hidden, query_width))
    else:
        before.append(_copied(template, "attention.query-down", attention.q_rank))
        before.append(_up(template, "attention.query-up", attention.q_rank, query_width))
    before.append(_copied(template, "attention.kv-down", down))
    up = heads * (attention.nope_head_dim + attention.value_head_dim)
    before.append(_up(template, "attention.kv-up", attention.kv_rank, up))
    width = heads * attention.value_head_dim
    return before, transposed(template, "attention.output", width, model.hidden, reduce_forward=reduce)


def _copied(template: Template, name: str, outputs: int) -> Linear:
    return Linear(name, template.sizes.hidden, outputs, copied=True, reduce_backward=False)


def _up(template: Template, name: str, rank: int, outputs: int) -> Linear:
    """Up-projection from a compressed input, which is whole on every rank of y: nothing to sum there."""
    return Linear(name, rank, outputs // template.sizes.plan.tensor_x, reduce_forward=False)


def _tokens(template: Template, linear: Linear) -> int:
    """Tokens that a projection handles; copied ones work before the all-gather of sequence parallelism."""
    return template.sizes.norm_tokens if linear.copied else template.sizes.tokens


def core_shape(sizes: Sizes, window: int | None, *, backward: bool) -> AttentionCore:
    """Attention core of one device; ring and all-to-all context parallelism give it the same work."""
    attention, plan = sizes.model.attention, sizes.plan
    if isinstance(attention, Attention):
        heads, kv_heads = local_heads(attention, plan.tensor_x)
        head_dim = value_dim = attention.head_dim
    else:
        heads = kv_heads = attention.heads // plan.tensor_x
        head_dim = attention.nope_head_dim + attention.rope_head_dim
        value_dim = attention.value_head_dim
    keys = mean_keys(sizes.sequence, window, causal=True)
    return AttentionCore(
        plan.micro_batch,
        sizes.local_sequence,
        sizes.sequence,
        keys,
        heads,
        kv_heads,
        head_dim,
        value_dim,
        backward,
    )


def _core_flop(core: AttentionCore, window: int | None) -> float:
    """FLOP with attention counted in full, as published figures count it; a window is counted as a window."""
    keys = mean_keys(core.keys, window, causal=False)
    return attention_flop(core.batch, core.queries, keys, core.heads, core.head_dim, core.value_dim)


def forward_core(template: Template, window: int | None) -> None:
    """Scores, softmax and weighted values, with the exchange of context parallelism."""
    sizes = template.sizes
    exchange = _exchange(template, backward=False)
    core = core_shape(sizes, window, backward=False)
    if sizes.stack.kernels.attention == "unfused":
        _unfused_forward(template, core)
    else:
        template.compute("attention.core", core, _core_flop(core, window))
    template.wait(*exchange)
    _all_to_all(template, "attention.after", 1)


def backward_core(template: Template, window: int | None) -> None:
    """Backward pass of the core. A fused kernel computes the scores again; that FLOP is not counted as work."""
    sizes = template.sizes
    _all_to_all(template, "attention.after", 1)
    exchange = _exchange(template, backward=True)
    core = core_shape(sizes, window, backward=True)
    if sizes.stack.kernels.attention == "unfused":
        _unfused_backward(template, core)
    else:
        template.compute("attention.core", core, 2 * _core_flop(core, window))
    template.wait(*exchange)


def _exchange(template: Template, *, backward: bool) -> tuple[After, ...]:
    """Ring attention passes keys and values once round (and their gradients back), beside the core."""
    sizes = template.sizes
    if sizes.plan.context == 1:
        return ()
    if sizes.plan.context_kind == "all-to-all":
        _all_to_all(template, "attention.before", 3)
        return ()
    core = core_shape(sizes, None, backward=backward)
    keys = core.batch * sizes.local_sequence * core.kv_heads * (core.head_dim + core.value_dim)
    size = keys * sizes.element_bytes * sizes.plan.context * (2 if backward else 1)
    return template.collective(
        "attention.ring", Stream.CONTEXT, Message("all-gather", "context", size), blocking=False
    )


def _all_to_all(template: Template, name: str, tensors: int) -> None:
    sizes = template.sizes
    if sizes.plan.context == 1 or sizes.plan.context_kind != "all-to-all":
        return
    core = core_shape(sizes, None, backward=False)
    heads = core.heads if tensors == 1 else core.heads + 2 * core.kv_heads
    size = core.batch * sizes.local_sequence * heads * core.head_dim * sizes.element_bytes
    template.collective(f"{name}.all-to-all", Stream.CONTEXT, Message("all-to-all", "context", size))


def _score_elements(core: AttentionCore) -> float:
    return float(core.batch * core.heads * core.queries * core.keys)


def _batched(
    template: Template, name: str, role: str, shape: tuple[int, int, int], core: AttentionCore
) -> None:
    m, n, k = shape
    batch = core.batch * core.heads
    aligned = not any(width % ALIGNED_ELEMENTS for width in (core.head_dim, core.value_dim, core.keys))
    work = Matmul(m, n, k, activation_precision(template.sizes.plan.precision), role, batch, aligned)
    template.compute(f"attention.{name}.{role}", work, 2.0 * batch * m * n * k)


def _unfused_forward(template: Template, core: AttentionCore) -> None:
    _batched(template, "scores", "forward", (core.queries, core.keys, core.head_dim), core)
    template.elementwise("attention.softmax", _score_elements(core), passes.SOFTMAX)
    if template.sizes.stack.kernels.dropout:
        template.elementwise("attention.dropout", _score_elements(core), passes.DROPOUT_UNFUSED)
    _batched(template, "values", "forward", (core.queries, core.value_dim, core.keys), core)


def _unfused_backward(template: Template, core: AttentionCore) -> None:
    _batched(template, "values", "dgrad", (core.queries, core.keys, core.value_dim), core)
    _batched(template, "values", "wgrad", (core.keys, core.value_dim, core.queries), core)
    if template.sizes.stack.kernels.dropout:
        template.elementwise(
            "attention.dropout", _score_elements(core), passes.DROPOUT_UNFUSED, backward=True
        )
    template.elementwise("attention.softmax", _score_elements(core), passes.SOFTMAX, backward=True)
    _batched(template, "scores", "dgrad", (core.queries, core.head_dim, core.keys), core)
    _batched(template, "scores", "wgrad", (core.keys, core.head_dim, core.queries), core)


def rotary(template: Template, *, backward: bool) -> None:
    """Rotary position embedding of queries and keys."""
    sizes = template.sizes
    if sizes.model.positions != "rope":
        return
    core = core_shape(sizes, None, backward=backward)
    attention = sizes.model.attention
    width = attention.head_dim if isinstance(attention, Attention) else attention.rope_head_dim
    elements = sizes.tokens * (core.heads + core.kv_heads) * width
    kind = passes.ROPE_FUSED if sizes.stack.kernels.fused_rope else passes.ROPE_UNFUSED
    template.elementwise("attention.rope", elements, kind, backward=backward)
    if isinstance(attention, Attention) and attention.qk_norm:
        template.elementwise("attention.qk-norm", elements, norm_passes(sizes), backward=backward)


def norm_passes(sizes: Sizes) -> passes.Passes:
    """Passes of one norm under the stack."""
    if sizes.model.norm == "layernorm":
        return passes.LAYER_NORM
    return passes.RMS_NORM_FUSED if sizes.stack.kernels.fused_norm else passes.RMS_NORM_UNFUSED


def reduce_statistics(template: Template, name: str) -> None:
    """Sum the statistics of a norm over y, where the hidden state is split: two fp32 numbers per token."""
    sizes = template.sizes
    if sizes.plan.tensor_y > 1 and sizes.stack.communication.distributed_norm:
        message = Message("all-reduce", "tensor_y", sizes.norm_tokens * 8.0)
        template.collective(f"{name}.all-reduce", Stream.TENSOR, message)


def forward_attention(template: Template, window: int | None, *, reduce: bool) -> None:
    """Projections, core and output projection. In a recomputed pass gathers are not prefetched across layers."""
    across = template.phase is not Phase.RECOMPUTE
    before, after = attention_linears(template, reduce=reduce)
    for linear in before:
        forward_linear(template, linear, _tokens(template, linear), prefetch_across=across)
    rotary(template, backward=False)
    forward_core(template, window)
    forward_linear(template, after, template.sizes.tokens, prefetch_across=across)


def backward_attention(
    template: Template, window: int | None, *, regather: bool, recompute_core: bool
) -> None:
    """Backward of the attention part; selective recompute repeats the core's forward first (arXiv 2205.05198)."""
    # in a parallel block the feed-forward part has gathered the gradient of the sum already
    before, after = attention_linears(template, reduce=not template.sizes.model.parallel_block)
    backward_linear(template, after, template.sizes.tokens, regather=regather)
    if recompute_core:
        phase, template.phase = template.phase, Phase.RECOMPUTE
        forward_core(template, window)
        template.phase = phase
    backward_core(template, window)
    rotary(template, backward=True)
    for linear in reversed(before):
        backward_linear(template, linear, _tokens(template, linear), regather=regather)
