"""Builder of templates: emits operations in issue order and keeps the dependencies between streams.

Compute operations run in FIFO order. A blocking collective waits for the compute before it and holds the compute
after it; a concurrent one only waits, and whoever needs its result calls `wait`.
"""

from towtank.kernels.counts import BYTES_PER_ELEMENT, matmul_flop
from towtank.kernels.passes import CAST, Passes
from towtank.simulator.lowering.sizes import NARROW_PRECISIONS, Sizes, parameter_bytes
from towtank.simulator.operations import (
    PREVIOUS,
    After,
    Elementwise,
    Matmul,
    Message,
    Operation,
    Phase,
    Stream,
    Work,
)


class Template:
    """Operations of one template under construction."""

    def __init__(self, sizes: Sizes, phase: Phase, *, cached: bool = False) -> None:
        self.sizes = sizes
        self.phase = phase
        self.cached = cached
        """Whether weights are still gathered from the forward pass."""
        self.operations: list[Operation] = []
        self._holds: list[After] = []
        self._last_compute: After | None = None

    def wait(self, *dependencies: After) -> None:
        """Let the next compute operation wait for these."""
        self._holds.extend(dependencies)

    def before_last_multiply(self, *, across: bool) -> tuple[After, ...] | None:
        """Where the prefetch of a weight is issued: as the multiply of the linear layer before starts.

        `across` allows a multiply of the instance before; None where there is nothing to name.
        """
        computes = [index for index, done in enumerate(self.operations) if done.stream is Stream.COMPUTE]
        works = [self.operations[index].work for index in computes]
        multiplies = [n for n, work in enumerate(works) if isinstance(work, Matmul) and work.role != "wgrad"]
        if multiplies and multiplies[-1] > 0:
            return (After(computes[multiplies[-1] - 1]),)
        if across:
            # a layer ends with activation, down-projection, residual and, in some stacks, dropout
            return (After(-4 if self.sizes.stack.kernels.dropout else -3, 1),)
        return (After(computes[0]),) if computes else None

    def last_compute(self) -> tuple[After, ...]:
        """The compute operation emitted last; that of the instance before at the start of the template."""
        return (PREVIOUS if self._last_compute is None else self._last_compute,)

    def _append(self, name: str, stream: Stream, work: Work, flop: float, after: tuple[After, ...]) -> After:
        self.operations.append(Operation(name, self.phase, stream, work, flop, after))
        return After(len(self.operations) - 1)

    def compute(self, name: str, work: Work, flop: float = 0.0) -> After:
        """Emit an operation on the compute stream."""
        dependencies = tuple(self._holds)
        self._holds = []
        self._last_compute = self._append(name, Stream.COMPUTE, work, flop, dependencies)
        return self._last_compute

    def elementwise(self, name: str, elements: float, passes: Passes, *, backward: bool = False) -> None:
        """Emit memory-bound kernels over `elements` elements of an activation."""
        count = passes.backward if backward else passes.forward
        launches = passes.backward_launches if backward else passes.forward_launches
        kernel = f"{passes.kernel}.{'backward' if backward else 'forward'}"
        self.compute(name, Elementwise(elements * count * self.sizes.element_bytes, launches, kernel))

    def matmul(
        self,
        name: str,
        role: str,
        shape: tuple[int, int, int],
        batch: int = 1,
        narrow: bool = True,
        layer: tuple[int, int] | None = None,
        cast_parts: int = 1,
    ) -> After:
        """Emit a matrix multiply, with the casts that a narrow precision needs.

        `cast_parts`: ranks that each cast a part of the input before it is gathered.
        """
        m, n, k = shape
        precision = self.sizes.plan.precision
        if precision in NARROW_PRECISIONS and not narrow:
            precision = "bf16"
        if precision in NARROW_PRECISIONS and role != "wgrad":
            # the activation is cast as the multiply's input; its transpose for the weight gradient comes with it
            self.elementwise(f"{name}.cast", batch * m * k / cast_parts, CAST)
        return self.compute(
            f"{name}.{role}",
            Matmul(m, n, k, precision, role, batch, layer=layer),
            matmul_flop(m, n, k, batch),
        )

    def collective(
        self,
        name: str,
        stream: Stream,
        message: Message,
        *,
        blocking: bool = True,
        after: tuple[After, ...] | None = None,
    ) -> tuple[After, ...]:
        """Emit a communication operation and return it as a dependency; nothing if there is nothing to send.

        It waits for the compute before it, or for `after` where given.
        """
        if message.bytes <= 0:
            return ()
        dependencies = (*self.last_compute(), *self._holds) if after is None else after
        index = self._append(name, stream, message, 0.0, dependencies)
        if blocking:
            self.wait(index)
        return (index,)

    def weight_bytes(self, elements: float) -> float:
        """Bytes of weights as they are gathered."""
        return elements * parameter_bytes(self.sizes)

    def scatter_bytes(self, elements: float) -> float:
        """Bytes of weight gradients as they are reduced over the shards.

        AxoNN reduces single layers in the precision of the weights; FSDP reduces in that of the gradients.
        """
        communication = self.sizes.stack.communication
        if communication.shard_unit == "linear":
            return self.weight_bytes(elements)
        return (
            elements
            * BYTES_PER_ELEMENT[self.sizes.plan.gradient_precision or communication.gradient_precision]
        )

    @property
    def scatter_stream(self) -> Stream:
        """Queue of reductions of weight gradients over the shards.

        They share the links of the gathers over the same group: where no gather is prefetched past a reduction,
        both stand in one queue, which takes as long as both at half the rate.
        """
        communication = self.sizes.stack.communication
        shared = communication.shard_unit == "linear" and not communication.regather_in_backward
        return Stream.GATHER if shared else Stream.SCATTER

    def build(self) -> tuple[Operation, ...]:
        """Return the finished template.

        What the compute stream still waits for at the end holds the next instance: an empty kernel marks the join.
        """
        if self._holds:
            self.compute("join", Elementwise(0.0, 0))
        return tuple(self.operations)
