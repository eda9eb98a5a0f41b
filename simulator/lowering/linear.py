"""One linear layer on AxoNN's grid (Singh et al., SC'24, Algorithm 1), of which Megatron and FSDP are corners."""

from dataclasses import dataclass

from towtank.kernels.counts import BYTES_PER_ELEMENT
from towtank.kernels.passes import Passes
from towtank.simulator.lowering.template import Template
from towtank.simulator.operations import After, Message, Stream

TENSOR_CHUNKS = 4
"""Parts in which an overlapped tensor-parallel collective runs beside its multiply (Transformer Engine's default)."""

MAIN_GRADIENT_ADD = Passes(5, 5, 1, 1, "gradient-add")
"""Adding a 16-bit gradient to an fp32 main gradient: read 1 + 2, write 2 passes of 16 bits."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer as one device holds it: local input and output features."""

    name: str
    inputs: int
    outputs: int
    transposed: bool = False
    """Every second layer swaps x and y, so that no redistribution lies between them."""
    reduce_forward: bool = True
    """False where the sum is left to a later collective (parallel blocks)."""
    reduce_backward: bool = True
    copied: bool = False
    """Whole on every rank of x (down-projections of latent attention)."""
    sharded: bool = True
    narrow: bool = True

    @property
    def weights(self) -> int:
        """Weights in use on the device (gathered over the shards)."""
        return self.inputs * self.outputs


def normal(template: Template, name: str, inputs: int, outputs: int, **options: bool) -> Linear:
    """Layer whose outputs are split over x and inputs over y; sizes are those of the whole layer."""
    plan = template.sizes.plan
    return Linear(name, inputs // plan.tensor_y, outputs // plan.tensor_x, **options)


def transposed(template: Template, name: str, inputs: int, outputs: int, **options: bool) -> Linear:
    """Layer whose inputs are split over x and outputs over y; sizes are those of the whole layer."""
    plan = template.sizes.plan
    return Linear(name, inputs // plan.tensor_x, outputs // plan.tensor_y, transposed=True, **options)


def _tensor(
    template: Template,
    name: str,
    collective: str,
    group: str,
    elements: float,
    *,
    blocking: bool = True,
    narrow: bool = False,
) -> tuple[After, ...]:
    sizes = template.sizes
    degree = sizes.plan.degree("tensor_x" if group == "tensor_x" else "tensor_y")
    element = sizes.element_bytes
    if narrow and collective == "all-gather" and sizes.stack.communication.narrow_gathers:
        # sums travel wide; what is only gathered travels as the multiply reads it
        element = min(element, BYTES_PER_ELEMENT[sizes.plan.precision])
    size = elements * element if degree > 1 else 0.0
    return template.collective(
        f"{name}.{collective}", Stream.TENSOR, Message(collective, group, size), blocking=blocking
    )


def gather_weight(template: Template, linear: Linear, *, prefetch_across: bool) -> None:
    """All-gather this layer's weight over the shards, one layer ahead where the overlap is on (AxoNN's OAG)."""
    sizes = template.sizes
    if (
        not linear.sharded
        or template.cached
        or sizes.plan.weight_shards == 1
        or sizes.stack.communication.shard_unit != "linear"
    ):
        return
    message = Message("all-gather", "weight_shard", template.weight_bytes(linear.weights))
    after: tuple[After, ...] | None = None
    if sizes.overlap.all_gather:
        # issued when the layer before starts its multiply
        after = template.before_last_multiply(across=prefetch_across)
    template.collective(f"{linear.name}.weight.all-gather", Stream.GATHER, message, after=after)


def forward_linear(template: Template, linear: Linear, tokens: int, *, prefetch_across: bool = True) -> None:
    """Forward multiply with its collectives."""
    gather_weight(template, linear, prefetch_across=prefetch_across)
    sizes, name = template.sizes, linear.name
    shape = (tokens, linear.outputs, linear.inputs)
    if not sizes.sequence_split:
        template.matmul(name, "forward", shape, narrow=linear.narrow)
        if linear.reduce_forward:
            group = "tensor_x" if linear.transposed else "tensor_y"
            _tensor(template, name, "all-reduce", group, tokens * linear.outputs)
        return
    chunks = TENSOR_CHUNKS if sizes.overlap.tensor else 1
    if not linear.transposed:
        if linear.reduce_backward:
            elements = tokens * linear.inputs / chunks
            _tensor(template, name, "all-gather", "tensor_x", elements, narrow=linear.narrow)
        rest = _rest(template, linear, "all-gather", tokens * linear.inputs * linear.reduce_backward, chunks)
        parts = (
            sizes.plan.tensor_x if linear.reduce_backward and sizes.stack.communication.narrow_gathers else 1
        )
        template.matmul(name, "forward", shape, narrow=linear.narrow, cast_parts=parts)
        template.wait(*rest)
        if linear.reduce_forward:
            _tensor(template, name, "all-reduce", "tensor_y", tokens * linear.outputs)
    else:
        rest = _rest(
            template, linear, "reduce-scatter", tokens * linear.outputs * linear.reduce_forward, chunks
        )
        template.matmul(name, "forward", shape, narrow=linear.narrow)
        template.wait(*rest)
        if linear.reduce_forward:
            _tensor(template, name, "reduce-scatter", "tensor_x", tokens * linear.outputs / chunks)


def _rest(
    template: Template, linear: Linear, collective: str, elements: float, chunks: int
) -> tuple[After, ...]:
    """Emit the part of an overlapped collective that runs beside the multiply."""
    elements = elements * (chunks - 1) / chunks
    name = f"{linear.name}.beside"
    return _tensor(template, name, collective, "tensor_x", elements, blocking=False, narrow=linear.narrow)


def backward_linear(template: Template, linear: Linear, tokens: int, *, regather: bool) -> None:
    """Input-gradient and weight-gradient multiplies with their collectives.

    Order: dgrad, all-reduce over x beside wgrad (OAR), reduce-scatter of the weight gradient (ORS).
    """
    sizes, name = template.sizes, linear.name
    if regather:
        gather_weight(template, linear, prefetch_across=True)
    if sizes.sequence_split and linear.transposed and linear.reduce_forward:
        _tensor(template, name, "all-gather", "tensor_x", tokens * linear.outputs, narrow=linear.narrow)
    inputs_back: tuple[After, ...] = ()
    if sizes.sequence_split and not linear.transposed and linear.reduce_backward:
        # the input was kept in parts; its all-gather for wgrad runs beside dgrad (arXiv 2205.05198, section 4.2.2)
        concurrent = sizes.overlap.backward_all_reduce
        inputs_back = _tensor(
            template,
            f"{name}.input",
            "all-gather",
            "tensor_x",
            tokens * linear.inputs,
            blocking=not concurrent,
            narrow=linear.narrow,
        )
    gathered = sizes.sequence_split and linear.transposed and linear.reduce_forward
    parts = sizes.plan.tensor_x if gathered and sizes.stack.communication.narrow_gathers else 1
    template.matmul(
        name, "dgrad", (tokens, linear.inputs, linear.outputs), narrow=linear.narrow, cast_parts=parts
    )
    template.wait(*inputs_back)
    reduced = _reduce_input_gradient(template, linear, tokens)
    template.matmul(name, "wgrad", (linear.outputs, linear.inputs, tokens), narrow=linear.narrow)
    # the weight gradient is ready to be reduced whether or not the input gradient has been
    reduce_weight_gradient(template, linear)
    template.wait(*reduced)


def _reduce_input_gradient(template: Template, linear: Linear, tokens: int) -> tuple[After, ...]:
    if not linear.reduce_backward:
        return ()
    sizes = template.sizes
    concurrent = sizes.overlap.backward_all_reduce
    group = "tensor_y" if linear.transposed else "tensor_x"
    split = sizes.sequence_split and not linear.transposed
    collective = "reduce-scatter" if split else "all-reduce"
    name = f"{linear.name}.dgrad"
    return _tensor(template, name, collective, group, tokens * linear.inputs, blocking=not concurrent)


def reduce_weight_gradient(template: Template, linear: Linear) -> None:
    """Reduce-scatter the weight gradient over the shards and add it to the main gradient."""
    sizes = template.sizes
    shards = sizes.plan.weight_shards if linear.sharded else 1
    if shards > 1 and sizes.stack.communication.shard_unit == "linear":
        message = Message("reduce-scatter", "weight_shard", template.weight_bytes(linear.weights))
        name = f"{linear.name}.weight.reduce-scatter"
        template.collective(name, template.scatter_stream, message, blocking=not sizes.overlap.reduce_scatter)
    if not sizes.stack.kernels.fused_gradient_accumulation:
        elements = linear.weights / shards
        template.elementwise(f"{linear.name}.gradient-add", elements, MAIN_GRADIENT_ADD, backward=True)
