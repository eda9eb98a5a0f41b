"""Routed experts of a layer: router, dispatch, experts, weighted sum.

One autograd function with a backward pass of its own, so that every part of it is noted under its name. Tokens that
are copies on all members of x (no sequence parallelism) are routed each by one member, and the results gathered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from towtank.executor.distributed import collectives
from towtank.executor.distributed.grid import apply
from towtank.executor.distributed.mesh import Group
from towtank.executor.distributed.weights import Weight
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.experts.dispatch import Dispatch, plan_dispatch
from towtank.executor.layers.experts.routing import (
    Routes,
    choice_gradient,
    choose,
    expert_capacity,
    within_capacity,
)
from towtank.executor.layers.linear import Gathers
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.models.records import Experts
from towtank.simulator.operations import Phase

ELEMENTWISE, MATMUL = "elementwise", "matmul"


class Kept(NamedTuple):
    """What the forward pass leaves for the backward pass."""

    x: torch.Tensor
    """Routed tokens."""
    routes: Routes
    dispatch: Dispatch
    rows: torch.Tensor
    """Copies at their experts."""
    up: torch.Tensor
    """Their up-projections."""
    back: torch.Tensor
    """Results of the copies that this device has sent, in order of sending."""


@dataclass(slots=True)
class RoutedExperts:
    """The routed experts of one layer, as one device holds them."""

    name: str
    """Such as layer.3.experts."""
    shape: Experts
    router: Weight
    """[experts, hidden]."""
    weight: Weight
    """[features of gate, up and down (without a gate: up and down), local experts, hidden]."""
    x: Group
    """Tensor group x."""
    copies: bool
    """Whether the members of x hold the same tokens."""
    context: Group
    expert: Group
    tensor: Group
    """Group over which features of an expert are split (expert_tensor)."""
    sequence: int
    """Tokens of a whole sequence."""
    keeps: int = 0
    """As in `Linear`, and so are the three below."""
    then_forward: Gathers | None = None
    then_recompute: Gathers | None = None
    then_backward: Gathers | None = None

    def __call__(self, x: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        """Sums of the experts' results for [tokens, hidden]."""
        y: torch.Tensor = apply(_Routed, x, self, batch)
        return y

    def prefetch(self, phase: Phase) -> None:
        """Begin to gather the weight."""
        self.weight.prefetch(self.name, phase)

    @property
    def features(self) -> int:
        """Features of an expert on this device."""
        return self.weight.rows // (3 if self.shape.gated else 2)

    # ---- which tokens

    def mine(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens that this member of x routes; the last members may have fewer."""
        if not self.copies or self.x.size == 1:
            return x
        each = -(-x.shape[0] // self.x.size)
        return x[self.x.index * each : (self.x.index + 1) * each]

    def everyones(self, part: torch.Tensor, tokens: int, name: str, phase: Phase) -> torch.Tensor:
        """All tokens, of those that each member of x has routed."""
        if not self.copies or self.x.size == 1:
            return part
        each = -(-tokens // self.x.size)
        part = functional.pad(part, (0, 0, 0, each - part.shape[0]))
        return collectives.all_gather(part, self.x, f"{self.name}.{name}.all-gather", phase)[:tokens]

    def taken(self, experts: torch.Tensor, batch: MicroBatch) -> torch.Tensor | None:
        """Which copies are within the capacity of their expert; None: all."""
        if self.shape.capacity_factor is None:
            return None
        phase, name = forward_phase(), f"{self.name}.choices.all-gather"
        numbers = batch.rows if self.copies else batch.rows.chunk(self.x.size)[self.x.index]
        chosen = self.everyones(experts, batch.rows.shape[0], "choices", phase)
        both = torch.cat((numbers[:, None], chosen), 1)
        if not self.copies:
            both = collectives.all_gather(both, self.x, name, phase)
        both = collectives.all_gather(both, self.context, name, phase)
        numbers, chosen = both[:, 0], both[:, 1:]
        capacity = expert_capacity(
            self.shape.capacity_factor, self.shape.top_k, self.sequence, self.shape.num_experts
        )
        first = numbers.min() // self.sequence
        taken = within_capacity(chosen, numbers // self.sequence - first, numbers % self.sequence, capacity)
        own = taken.view(self.context.size, batch.rows.shape[0], -1)[self.context.index]
        return self.mine(own) if self.copies else own.chunk(self.x.size)[self.x.index]

    # ---- forward

    def forward(self, x: torch.Tensor, batch: MicroBatch) -> tuple[torch.Tensor, Kept]:
        """Outputs, and what the backward pass needs."""
        phase, name, tokens = forward_phase(), self.name, x.shape[0]
        weight = self.weight.acquire(name, phase)
        following = self.then_forward if phase is Phase.FORWARD else self.then_recompute
        if following is not None:
            following.prefetch(phase)
        x = self.mine(x)
        with recorder.operation(f"{name}.router.forward", MATMUL, phase):
            wide = torch.promote_types(x.dtype, torch.float32)
            routes = choose(x.to(wide) @ self.router.value.to(wide).t(), self.shape.top_k)
        dispatch = plan_dispatch(
            routes.experts,
            self.taken(routes.experts, batch),
            self.shape.num_experts,
            self.expert,
            self.tensor,
            name,
        )
        with recorder.operation(f"{name}.permute", ELEMENTWISE, phase):
            rows = dispatch.permute(x)
        rows = dispatch.to_experts(rows, f"{name}.dispatch", phase)
        up, down = self._compute(rows, weight, dispatch.counts, phase)
        if phase is Phase.FORWARD and self.keeps < 2:
            self.weight.release()
        back = dispatch.from_experts(down, f"{name}.combine", phase)
        with recorder.operation(f"{name}.unpermute", ELEMENTWISE, phase):
            scaled = dispatch.gather_slots(back).to(wide) * routes.weights[..., None]
            y = scaled.sum(1).to(x.dtype)
        return self.everyones(y, tokens, "output", phase), Kept(x, routes, dispatch, rows, up, back)

    def _compute(
        self, rows: torch.Tensor, weight: torch.Tensor, counts: Sequence[int], phase: Phase
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Up-projections, and results, of copies in the order of local experts."""
        into, out = self._matrices(weight)
        with recorder.operation(f"{self.name}.up.forward", MATMUL, phase):
            up = rows.new_empty((rows.shape[0], into.shape[0]))
            for expert, at in enumerate(_slices(counts)):
                torch.mm(rows[at], into[:, expert].t(), out=up[at])
        with recorder.operation(f"{self.name}.activation", ELEMENTWISE, phase):
            middle = self._activation(up)
        with recorder.operation(f"{self.name}.down.forward", MATMUL, phase):
            down = torch.empty_like(rows)
            for expert, at in enumerate(_slices(counts)):
                torch.mm(middle[at], out[:, expert], out=down[at])
        return up, down

    def _matrices(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parts [features, local experts, hidden] of the weight: into the hidden layer and out of it."""
        return weight[: -self.features], weight[-self.features :]

    def _activation(self, up: torch.Tensor) -> torch.Tensor:
        if not self.shape.gated:
            return functional.gelu(up, approximate="tanh")
        gate, linear = up.chunk(2, -1)
        return functional.silu(gate) * linear

    # ---- backward

    def backward(self, dy: torch.Tensor, kept: Kept) -> torch.Tensor:
        """Gradient of the input; those of the weights go to them."""
        back, name, tokens, dispatch = Phase.BACKWARD, self.name, dy.shape[0], kept.dispatch
        weight = self.weight.acquire(name, back)
        if self.then_backward is not None:
            self.then_backward.prefetch(back)
        dy = self.mine(dy)
        wide = kept.routes.weights.dtype
        with recorder.operation(f"{name}.unpermute", ELEMENTWISE, back):
            of_choice = (dispatch.gather_slots(kept.back).to(wide) * dy.to(wide)[:, None]).sum(-1)
            taken = dispatch.slots < dispatch.tokens.shape[0]
            scales = kept.routes.weights[taken][dispatch.slots[taken].argsort()]
            rows = (dispatch.permute(dy).to(wide) * scales[:, None]).to(dy.dtype)
        rows = dispatch.to_experts(rows, f"{name}.dispatch-gradient", back)
        buffer = self.weight.gradient_buffer(dy.dtype)
        of_rows = self._gradients(rows, weight, buffer[: self.weight.rows], kept)
        del weight
        self.weight.release(1 + self.keeps)
        self.weight.add_gradient(buffer, name)
        of_rows = dispatch.from_experts(of_rows, f"{name}.combine-gradient", back)
        with recorder.operation(f"{name}.permute", ELEMENTWISE, back):
            dx = dispatch.gather_slots(of_rows).to(wide).sum(1)
        dx = self._router_gradients(dx, of_choice, kept)
        return self.everyones(dx.to(dy.dtype), tokens, "gradient", back)

    def _gradients(
        self, dy: torch.Tensor, weight: torch.Tensor, into_gradient: torch.Tensor, kept: Kept
    ) -> torch.Tensor:
        """Gradient of the experts' inputs; that of their weights is written."""
        (into, out), (of_into, of_out) = self._matrices(weight), self._matrices(into_gradient)
        back, name, slices = Phase.BACKWARD, self.name, _slices(kept.dispatch.counts)
        with recorder.operation(f"{name}.down.dgrad", MATMUL, back):
            of_middle = dy.new_empty((dy.shape[0], out.shape[0]))
            for expert, at in enumerate(slices):
                torch.mm(dy[at], out[:, expert].t(), out=of_middle[at])
        with recorder.operation(f"{name}.activation", ELEMENTWISE, back), torch.enable_grad():
            up = kept.up.detach().requires_grad_()
            middle = self._activation(up)
            (of_up,) = torch.autograd.grad(middle, up, of_middle)
        with recorder.operation(f"{name}.down.wgrad", MATMUL, back):
            for expert, at in enumerate(slices):
                of_out[:, expert] = middle.detach()[at].t() @ dy[at]
        with recorder.operation(f"{name}.up.dgrad", MATMUL, back):
            dx = torch.empty_like(kept.rows)
            for expert, at in enumerate(slices):
                torch.mm(of_up[at], into[:, expert], out=dx[at])
        with recorder.operation(f"{name}.up.wgrad", MATMUL, back):
            for expert, at in enumerate(slices):
                of_into[:, expert] = of_up[at].t() @ kept.rows[at]
        return dx

    def _router_gradients(self, dx: torch.Tensor, of_choice: torch.Tensor, kept: Kept) -> torch.Tensor:
        """Add the router's part to the gradient of the tokens."""
        back, name, wide = Phase.BACKWARD, self.name, dx.dtype
        with recorder.operation(f"{name}.router.dgrad", MATMUL, back):
            of_logits = choice_gradient(kept.routes, of_choice)
            dx = dx.addmm(of_logits, self.router.value.to(wide))
        with recorder.operation(f"{name}.router.wgrad", MATMUL, back):
            of_router = of_logits.t() @ kept.x.to(wide)
        self.router.accumulate(of_router, f"{name}.router.gradient-add")
        return dx


def _slices(counts: Sequence[int]) -> list[slice]:
    """Rows of each expert."""
    found, start = [], 0
    for count in counts:
        found.append(slice(start, start + count))
        start += count
    return found


class _Routed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, experts: RoutedExperts, batch: MicroBatch) -> torch.Tensor:
        y, kept = experts.forward(x, batch)
        ctx.experts, ctx.routes, ctx.dispatch = experts, kept.routes, kept.dispatch
        ctx.save_for_backward(kept.x, kept.rows, kept.up, kept.back)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, rows, up, back = ctx.saved_tensors
        kept = Kept(x, ctx.routes, ctx.dispatch, rows, up, back)
        return ctx.experts.backward(gradients[0].contiguous(), kept), None, None
