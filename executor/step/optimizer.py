"""The end of a step: norm of all gradients, clipping, AdamW on this device's states, weights for the next step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from towtank.executor.distributed.collectives import SUM
from towtank.executor.distributed.mesh import Group
from towtank.executor.measured import recorder
from towtank.executor.step.parameter_gather import ParameterGather
from towtank.executor.step.precision import LossScale
from towtank.executor.step.states import States
from towtank.kernels import functional
from towtank.simulator.operations import Phase

if TYPE_CHECKING:
    from towtank.executor.settings import RunSettings

_TINY = 1e-6
"""Added to the norm before the division, as torch.nn.utils.clip_grad_norm_ does."""


@dataclass(frozen=True, slots=True)
class Update:
    """What the end of a step did."""

    gradient_norm: float
    """Before clipping; not finite where the step overflowed."""
    loss_sum: float
    """Sum of the token losses of all devices."""
    tokens: int
    """Tokens that count, of all devices."""
    updated: bool
    """False where weights were left alone because gradients overflowed in fp16."""


class Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) on the flat states of all buckets."""

    def __init__(
        self, states: Sequence[States], settings: "RunSettings", world: Group, gather: ParameterGather
    ) -> None:
        """Prepare.

        Args:
            states: of all buckets of this device.
            settings: learning rate, decay, moments and clipping.
            world: all devices, over which the norm is summed.
            gather: brings updated weights back to whoever uses them.
        """
        self.states, self._settings, self._world, self._gather = list(states), settings, world, gather
        self.scale = LossScale.of(settings.dtype)
        self.updates = 0
        """Steps that changed the weights."""

    def step(self, loss_share: torch.Tensor, tokens_share: torch.Tensor, divided_by: int) -> Update:
        """Update the weights from the summed gradients.

        Args:
            loss_share: this device's part of the sum of the token losses; added up over all devices on the way.
            tokens_share: of the number of tokens that count, likewise.
            divided_by: tokens by which the loss was divided before the backward passes.
        """
        with recorder.operation("gradient-norm", recorder.GRADIENT_NORM, Phase.OPTIMIZER):
            squares = sum((states.square_sum() for states in self.states), torch.zeros_like(loss_share))
            total = torch.stack((squares, loss_share, tokens_share))
        square, loss_sum, counted = self._sum_over_world(total)
        tokens = round(counted)
        norm, updated = self._scale_and_clip(square, divided_by / max(tokens, 1))
        if updated:
            self.updates += 1
            with recorder.operation("optimizer", recorder.OPTIMIZER, Phase.OPTIMIZER):
                for states in self.states:
                    self._update(states)
            self._gather.weights_changed()
        for states in self.states:
            if states.bucket.shards > 1:
                states.gradient = None
        return Update(norm, loss_sum, tokens, updated)

    def resume(self, updates: int, loss_scale: float, steps_since_overflow: int) -> None:
        """Go on from states that a checkpoint has brought."""
        self.updates = updates
        if self.scale.changes:
            self.scale.factor, self.scale.steps_since_overflow = loss_scale, steps_since_overflow
        for states in self.states:
            states.refresh_working()
        self._gather.weights_changed()

    def _scale_and_clip(self, square: float, correction: float) -> tuple[float, bool]:
        """Norm of the loss's gradients, and whether the weights may be updated; scales gradients for the update.

        Args:
            square: of the norm of the gradients as they are.
            correction: factor that makes them those of the mean loss, the loss scale apart.
        """
        with recorder.operation("gradient-norm", recorder.GRADIENT_NORM, Phase.OPTIMIZER):
            scaled = math.sqrt(square) if square >= 0 else math.nan
            factor, updated = correction / self.scale.factor, self.scale.follow(scaled)
            norm, clip = scaled * factor, self._settings.gradient_clip
            if clip is not None and norm > clip:
                factor *= clip / (norm + _TINY)
            if updated and factor != 1.0:
                for states in self.states:
                    if states.gradient is not None:
                        states.gradient.mul_(factor)
        return norm, updated

    def _sum_over_world(self, total: torch.Tensor) -> list[float]:
        if self._world.size > 1:
            import torch.distributed as dist

            with recorder.operation("gradient-norm.all-reduce", recorder.GRADIENT_NORM, Phase.OPTIMIZER):
                dist.all_reduce(total, SUM, self._world.process_group)
        with recorder.operation("gradient-norm", recorder.GRADIENT_NORM, Phase.OPTIMIZER):
            found: list[float] = total.tolist()
            return found

    def _update(self, states: States) -> None:
        """AdamW on one bucket: first what decays, then what does not."""
        settings, end = self._settings, states.bucket.decaying
        assert states.gradient is not None
        for start, stop, decay in ((0, end, settings.weight_decay), (end, states.bucket.elements, 0.0)):
            if start == stop:
                continue
            part = slice(start, stop)
            functional.adamw(
                states.gradient[part],
                states.master[part],
                states.first[part],
                states.second[part],
                None if states.working is states.master else states.working[part],
                step=self.updates,
                rate=settings.learning_rate,
                betas=settings.betas,
                epsilon=settings.epsilon,
                decay=decay,
            )
