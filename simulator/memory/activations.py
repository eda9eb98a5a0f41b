"""Bytes of activations that a forward pass keeps for the backward pass.

Counted tensor by tensor as in Korthikanti et al., arXiv 2205.05198, section 4.1; for a GPT layer without flash
attention the sum is equation 2, s b h (10 + 24/t + 5 a s / (h t)).
"""

from dataclasses import dataclass

from towtank.kernels.counts import BYTES_PER_ELEMENT
from towtank.simulator.lowering.attention import attention_linears, core_shape
from towtank.simulator.lowering.feed_forward import ExpertSizes, dense_linears
from towtank.simulator.lowering.linear import Linear
from towtank.simulator.lowering.selective import kept_multiplies
from towtank.simulator.lowering.sizes import NARROW_PRECISIONS, Sizes
from towtank.simulator.lowering.template import Template
from towtank.simulator.operations import Phase

_MASK_BYTES = 1.0
_FP32_BYTES = 4.0


@dataclass(frozen=True, slots=True)
class LayerActivations:
    """Bytes that one layer keeps for one micro-batch on a device."""

    kept: float
    """Under the plan's recompute policy."""
    working: float
    """More that is there while the layer is recomputed or run backward."""


def _input_bytes(sizes: Sizes) -> float:
    """Bytes per element of a kept input of a linear layer; a narrow multiply keeps its narrow copy."""
    precision = sizes.plan.precision
    return BYTES_PER_ELEMENT[precision] if precision in NARROW_PRECISIONS else sizes.element_bytes


def layer_input_bytes(sizes: Sizes) -> float:
    """Bytes of the hidden state between layers."""
    return sizes.norm_tokens * sizes.hidden * sizes.element_bytes


def _linear_input(sizes: Sizes, linear: Linear) -> float:
    """Kept input of a linear layer; under sequence parallelism only its own part is kept."""
    split = sizes.sequence_split and not linear.transposed and not sizes.stack.memory.keeps_gathered_inputs
    return (sizes.norm_tokens if split else sizes.tokens) * linear.inputs * _input_bytes(sizes)


def gathered_input_bytes(sizes: Sizes, kind: tuple[bool, int | None], recomputed: bool) -> float:
    """Bytes that one layer keeps of inputs gathered over the tensor ranks: of its queries, keys and values and of its
    dense feed-forward part. 0 where ranks keep their own part of them."""
    if recomputed or not sizes.sequence_split or not sizes.stack.memory.keeps_gathered_inputs:
        return 0.0
    template = Template(sizes, Phase.FORWARD)
    before, _ = attention_linears(template)
    inputs = {linear.inputs: _linear_input(sizes, linear) for linear in before}
    shares_norm = sizes.model.parallel_block and sizes.model.norms_per_layer == 1
    # dense and expert parts read the hidden state; routed tokens are sent, not gathered
    dense = 0.0 if kind[0] or shares_norm else sizes.tokens * sizes.hidden * _input_bytes(sizes)
    return sum(inputs.values()) + dense


def score_bytes(sizes: Sizes, window: int | None) -> float:
    """Bytes of attention scores that an unfused attention keeps: softmax, dropout mask, dropped scores."""
    if sizes.stack.kernels.attention != "unfused":
        return 0.0
    core = core_shape(sizes, window, backward=False)
    each = sizes.element_bytes
    if sizes.stack.kernels.dropout:
        each = 2 * sizes.element_bytes + _MASK_BYTES
    return each * core.batch * core.heads * core.queries * core.keys


def attention_bytes(sizes: Sizes, window: int | None) -> float:
    """Bytes that the attention part keeps, scores apart."""
    template = Template(sizes, Phase.FORWARD)
    before, after = attention_linears(template)
    core = core_shape(sizes, window, backward=False)
    heads = core.heads * core.head_dim + core.kv_heads * (core.head_dim + core.value_dim)
    total = layer_input_bytes(sizes)  # input of the norm
    # projections of one input share it
    inputs = {linear.inputs: _linear_input(sizes, linear) for linear in before}
    total += sum(inputs.values())
    total += sizes.tokens * heads * sizes.element_bytes  # queries, keys, values
    total += _linear_input(sizes, after)
    if sizes.stack.kernels.attention != "unfused":
        total += sizes.tokens * core.heads * _FP32_BYTES  # log-sum-exp of each query and head
    return total + _residual_mask(sizes)


def _residual_mask(sizes: Sizes) -> float:
    return sizes.norm_tokens * sizes.hidden * _MASK_BYTES if sizes.stack.kernels.dropout else 0.0


def _dense_bytes(sizes: Sizes, hidden: int, *, gated: bool, name: str) -> float:
    template = Template(sizes, Phase.FORWARD)
    up, down = dense_linears(template, hidden, gated=gated, name=name)
    # a parallel block with a single norm feeds both parts with its output
    shares_norm = sizes.model.parallel_block and sizes.model.norms_per_layer == 1
    # without fusion the activation function's own output is kept beside what it is multiplied with or added to
    unfused = (
        0.0 if sizes.stack.kernels.fused_activation else sizes.tokens * down.inputs * sizes.element_bytes
    )
    return unfused + (
        (0.0 if shares_norm else _linear_input(sizes, up))
        + sizes.tokens * up.outputs * sizes.element_bytes
        + _linear_input(sizes, down)
    )


def feed_forward_bytes(sizes: Sizes, experts: bool) -> float:
    """Bytes that the feed-forward part keeps."""
    model = sizes.model
    total = layer_input_bytes(sizes) + _residual_mask(sizes)
    if model.parallel_block:
        total -= layer_input_bytes(
            sizes
        )  # the norm reads the input of the layer, which the attention part keeps
    if not experts or model.experts is None:
        return total + _dense_bytes(sizes, model.mlp.hidden, gated=model.mlp.gated, name="mlp")
    moe = ExpertSizes(Template(sizes, Phase.FORWARD), model.experts)
    handled = moe.tokens_per_expert * moe.local
    total += layer_input_bytes(sizes)  # output of the norm, which the router and the dispatch read
    total += moe.routed_tokens * model.experts.num_experts * _FP32_BYTES
    total += handled * model.hidden * _input_bytes(sizes)
    total += handled * moe.up * sizes.element_bytes + handled * moe.features * _input_bytes(sizes)
    total += moe.sent * model.hidden * sizes.element_bytes  # outputs before their weighted sum
    if model.experts.shared_hidden:
        total += _dense_bytes(sizes, model.experts.shared_hidden, gated=model.experts.gated, name="shared")
    return total


def _alternate_bytes(sizes: Sizes, experts: bool) -> float:
    """Bytes that selective checkpointing of the torchtitan kind keeps: input of the layer, attention output, every
    second multiply's output; routed experts as a whole."""
    template = Template(sizes, Phase.FORWARD)
    _, after = attention_linears(template)
    core = core_shape(sizes, None, backward=False)
    total = layer_input_bytes(sizes) + _linear_input(sizes, after) + sizes.tokens * core.heads * _FP32_BYTES
    for linear in kept_multiplies(template, experts=experts):
        split = sizes.sequence_split and linear.transposed
        tokens = sizes.norm_tokens if split or linear.copied else sizes.tokens
        total += tokens * linear.outputs * sizes.element_bytes
    return total + (feed_forward_bytes(sizes, experts) if experts else 0.0)


def layer_activations(sizes: Sizes, kind: tuple[bool, int | None], recomputed: bool) -> LayerActivations:
    """Bytes of one layer under the plan's recompute policy."""
    experts, window = kind
    body = attention_bytes(sizes, window) + feed_forward_bytes(sizes, experts)
    scores = score_bytes(sizes, window)
    if recomputed:
        return LayerActivations(layer_input_bytes(sizes), body + scores)
    if sizes.plan.recompute == "selective":
        if sizes.stack.kernels.selective_recompute == "alternate":
            kept = min(body, _alternate_bytes(sizes, experts))
            return LayerActivations(kept, scores + body - kept)
        return LayerActivations(body, scores)
    return LayerActivations(body + scores, 0.0)


def head_bytes(sizes: Sizes) -> tuple[float, float]:
    """Bytes at the end of the model: (kept for each micro-batch, logits while the loss is computed)."""
    fused = sizes.stack.kernels.fused_cross_entropy
    # unfused: logits, their fp32 copy and the fp32 gradient (a metric: its logarithms of softmax); fused: logits,
    # overwritten by their gradient
    whole = not fused or sizes.stack.kernels.training_metrics > 0
    each = sizes.element_bytes + (2 * _FP32_BYTES if whole else 0.0)
    return 2 * layer_input_bytes(sizes), _logits(sizes) * each


def last_logits_bytes(sizes: Sizes) -> float:
    """Bytes of an earlier micro-batch's logits that are still there, where the stack keeps them: the logits and the
    fp32 softmax kept for their gradient. What the loss works in, a second fp32 copy, is gone by then."""
    again = sizes.plan.num_micro_batches > 1 and sizes.plan.tensor_x > 1
    if not sizes.stack.memory.keeps_last_logits or not again:
        return 0.0
    return _logits(sizes) * (sizes.element_bytes + _FP32_BYTES)


def _logits(sizes: Sizes) -> float:
    """Logits of one micro-batch on a device."""
    return sizes.tokens * sizes.vocab / (sizes.plan.tensor_x * sizes.plan.tensor_y)
