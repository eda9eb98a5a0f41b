"""Look-up of tokens and projection to the vocabulary, both split over x and y together.

Between the layers a hidden state is [tokens (over x under sequence parallelism), features over y]; embedding and head
see whole rows, so features are cut after the look-up and gathered before the head.
"""

from typing import Any

import torch

from towtank.executor.distributed import collectives
from towtank.executor.distributed.grid import Grid, apply
from towtank.executor.distributed.mesh import Mesh
from towtank.executor.distributed.weights import Weight
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase


class Layout:
    """Between whole rows [tokens, hidden] and this device's part of them."""

    def __init__(self, grid: Grid, mesh: Mesh) -> None:
        self.grid = grid
        ranks = grid.xy.ranks
        self._places = [
            (mesh.coordinate("tensor_x", rank), mesh.coordinate("tensor_y", rank)) for rank in ranks
        ]
        """(x, y) of the members of the x.y group."""

    def part(self, whole: torch.Tensor, name: str, phase: Phase) -> torch.Tensor:
        """This device's part of the sum of `whole` over the x.y group."""
        grid = self.grid
        if grid.xy.size == 1:
            return whole
        # copies around a collective are part of it
        kind = "reduce-scatter" if grid.split else "all-reduce"
        with recorder.operation(f"{name}.{kind}", f"{kind} {grid.xy.name}", phase):
            if grid.split:
                if grid.y.size > 1:
                    blocks = self._blocks(whole)
                    whole = torch.cat([blocks[x][y] for x, y in self._places])
                return collectives.reduce_scatter(whole, grid.xy, f"{name}.{kind}", phase)
            total = collectives.all_reduce(whole, grid.xy, f"{name}.{kind}", phase)
            if grid.y.size == 1:
                return total
            return total.chunk(grid.y.size, 1)[grid.y.index].contiguous()

    def _blocks(self, whole: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        return [rows.chunk(self.grid.y.size, 1) for rows in whole.chunk(self.grid.x.size)]

    def whole(self, part: torch.Tensor, name: str, phase: Phase) -> torch.Tensor:
        """Whole rows of all tokens, put together from the parts."""
        grid, name = self.grid, f"{name}.all-gather"
        if not grid.split:
            if grid.y.size == 1:
                return part
            with recorder.operation(name, f"all-gather {grid.y.name}", phase):
                parts = collectives.all_gather(part, grid.y, name, phase)
                return torch.cat(parts.chunk(grid.y.size), 1)
        if grid.y.size == 1:
            return collectives.all_gather(part, grid.x, name, phase)
        with recorder.operation(name, f"all-gather {grid.xy.name}", phase):
            parts = collectives.all_gather(part, grid.xy, name, phase)
            found = dict(zip(self._places, parts.chunk(grid.xy.size), strict=True))
            rows = [torch.cat([found[x, y] for y in range(grid.y.size)], 1) for x in range(grid.x.size)]
            return torch.cat(rows)


class Embedding:
    """Token table [local vocabulary, hidden], and learned positions [positions, local features] or None."""

    NAME = "model.embedding"

    def __init__(self, table: Weight, positions: Weight | None, grid: Grid, layout: Layout) -> None:
        self.table, self.positions, self.grid, self.layout = table, positions, grid, layout
        self._first = table.pieces[0].box.offset[0]

    def __call__(self, anchor: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        """Hidden state; `anchor` is any tensor that needs a gradient, so that there is a backward pass."""
        hidden: torch.Tensor = apply(_Embedding, anchor, self, batch)
        return hidden

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """Hidden state, without autograd."""
        phase = forward_phase()
        table = self.table.acquire(self.NAME, phase)
        with recorder.operation(f"{self.NAME}.lookup", "elementwise", phase):
            at, here = self._local(batch)
            rows = table.index_select(0, at)
            if here is not None:
                rows.mul_(here[:, None])
        self.table.release()
        hidden = self.layout.part(rows, self.NAME, phase)
        if self.positions is None:
            return hidden
        learned = self.positions.acquire(f"{self.NAME}.positions", phase)
        with recorder.operation(f"{self.NAME}.lookup", "elementwise", phase):
            hidden = hidden.add_(learned.index_select(0, self._places(batch)))
        self.positions.release()
        return hidden

    def _local(self, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Rows of the local table, and which tokens are there (None: all)."""
        if self.grid.xy.size == 1:
            return batch.tokens, None
        local = batch.tokens - self._first
        here = (local >= 0) & (local < self.table.rows)
        return local.clamp_(0, self.table.rows - 1), here

    def _places(self, batch: MicroBatch) -> torch.Tensor:
        """Position of each token of the hidden state."""
        places = batch.positions.repeat(batch.sequences)
        return places.chunk(self.grid.x.size)[self.grid.x.index] if self.grid.split else places

    def backward(self, dy: torch.Tensor, batch: MicroBatch) -> None:
        """Gradients of the tables."""
        back, name = Phase.BACKWARD, f"{self.NAME}.gradient"
        if self.positions is not None:
            _add_rows(self.positions, self._places(batch), dy, f"{self.NAME}.positions", name)
        dy = self.layout.whole(dy, self.NAME, back)
        with recorder.operation(name, "elementwise", back):
            at, here = self._local(batch)
            if here is not None:
                at, dy = at[here], dy[here]
        _add_rows(self.table, at, dy, self.NAME, name)


def _add_rows(weight: Weight, at: torch.Tensor, dy: torch.Tensor, name: str, add: str) -> None:
    """Add rows of dy to the gradient of a table, where they came from.

    They are summed in the format of gradients, and reduced over shards in that of dy.
    """
    with recorder.operation(add, "elementwise", Phase.BACKWARD):
        wide = dy.to(weight.gradient.dtype)
        gradient = weight.own_gradient()
        if gradient is not None:
            gradient.index_add_(0, at, wide)
            return
        buffer = weight.gradient_buffer(wide.dtype).zero_().index_add_(0, at, wide).to(dy.dtype)
    weight.add_gradient(buffer, name, add)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, embedding: Embedding, batch: MicroBatch) -> torch.Tensor:
        ctx.embedding, ctx.batch = embedding, batch
        return embedding.forward(batch)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.embedding.backward(gradients[0].contiguous(), ctx.batch)
        return None, None, None


class Head:
    """Projection of whole rows to the local vocabulary: table [local vocabulary, hidden], bias or None."""

    NAME = "model.head"

    def __init__(self, table: Weight, bias: Weight | None, layout: Layout) -> None:
        self.table, self.bias, self.layout = table, bias, layout

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [all tokens of the device, local vocabulary]."""
        logits: torch.Tensor = apply(_Head, x, self)
        return logits

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and the whole rows. The table stays gathered until the backward pass."""
        phase = forward_phase()
        table = self.table.acquire(self.NAME, phase)
        x = self.layout.whole(x, self.NAME, phase)
        with recorder.operation(f"{self.NAME}.forward", "matmul", phase):
            if self.bias is not None:
                return torch.addmm(self.bias.value, x, table.t()), x
            return torch.mm(x, table.t()), x

    def backward(self, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """Gradient of the input; that of the table goes to it."""
        back = Phase.BACKWARD
        table = self.table.acquire(self.NAME, back)
        with recorder.operation(f"{self.NAME}.dgrad", "matmul", back):
            dx = torch.mm(dy, table)
        del table
        self.table.release(2)
        dx = self.layout.part(dx, f"{self.NAME}.dgrad", back)
        name = f"{self.NAME}.wgrad"
        with recorder.operation(name, "matmul", back):
            if self.bias is not None:
                self.bias.accumulate(dy.sum(0), name, "matmul")
            gradient = self.table.own_gradient() if self.table.gradient.dtype == dy.dtype else None
            if gradient is not None:
                torch.addmm(gradient, dy.t(), x, out=gradient)
                return dx
            buffer = self.table.gradient_buffer(dy.dtype)
            torch.mm(dy.t(), x, out=buffer[: self.table.rows])
        self.table.add_gradient(buffer, self.NAME, name, "matmul")
        return dx


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, head: Head) -> torch.Tensor:
        logits, whole = head.forward(x)
        ctx.head = head
        ctx.save_for_backward(whole)
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        head: Head = ctx.head
        return head.backward(x, gradients[0].contiguous()), None
