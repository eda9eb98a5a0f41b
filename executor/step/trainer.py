"""One training step of one device: passes, sums of gradients, optimizer; and its states for checkpoints."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from towtank.executor.data import IGNORED
from towtank.executor.distributed.buckets import make_buckets
from towtank.executor.distributed.mesh import Mesh
from towtank.executor.distributed.store import DTYPES
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.build import Builder
from towtank.executor.layers.transformer import Chunk
from towtank.executor.measured import recorder
from towtank.executor.settings import RunSettings
from towtank.executor.step.gradients import GradientSums
from towtank.executor.step.optimizer import Optimizer
from towtank.executor.step.parameter_gather import ParameterGather
from towtank.executor.step.pipeline import Pass, Stage, run_passes
from towtank.executor.step.pipeline_messages import PipelineMessages
from towtank.executor.step.states import States
from towtank.simulator.lowering.stages import chunks_of
from towtank.simulator.operations import Phase as StepPhase

if TYPE_CHECKING:
    from towtank.executor.checkpoint.folder import Progress
    from towtank.executor.checkpoint.parts import Part


@dataclass(frozen=True, slots=True)
class StepResult:
    """One training step, the same on every device."""

    step: int
    """Counted from 0."""
    loss: float
    """Mean over the tokens of the global batch that count."""
    gradient_norm: float
    """Of all gradients together, before clipping."""
    tokens: int
    """Tokens that count."""
    updated: bool = True
    """False where the weights were left alone because gradients overflowed (fp16)."""

    @property
    def finite(self) -> bool:
        """Whether the loss is a number, and the norm of the gradients that the weights were updated with."""
        return math.isfinite(self.loss) and (math.isfinite(self.gradient_norm) or not self.updated)


class _Passes:
    """Forward and backward passes of the micro-batches of one step through autograd."""

    def __init__(self, chunks: Sequence[Chunk], sums: GradientSums, last_micro_batch: int) -> None:
        self._chunks, self._sums, self._last_micro_batch = chunks, sums, last_micro_batch
        self._kept: dict[tuple[int, int], tuple[torch.Tensor | None, GradientEdge]] = {}
        self._batches: Sequence[MicroBatch] = ()
        self._scale = 1.0
        self.loss_sum: torch.Tensor | None = None

    def begin(self, batches: Sequence[MicroBatch], scale: float) -> None:
        """Begin a step. `scale`: factor of the sum of token losses."""
        self._batches, self._scale, self.loss_sum = batches, scale, None

    def forward(self, one: Pass, hidden: torch.Tensor | None, *, last: bool) -> torch.Tensor:
        """Run one forward pass and keep its graph; what it made is the caller's alone."""
        given = None if hidden is None else hidden.requires_grad_()
        made = self._chunks[one.chunk](given, self._batches[one.micro_batch])
        if last:
            loss = made.detach().double()
            self.loss_sum = loss if self.loss_sum is None else self.loss_sum + loss
            made = made * self._scale
        self._kept[one.chunk, one.micro_batch] = given, get_gradient_edge(made)
        return made.detach()

    def backward(self, one: Pass, gradient: torch.Tensor | None) -> torch.Tensor | None:
        """Run one backward pass and let its graph go."""
        given, made = self._kept.pop((one.chunk, one.micro_batch))
        self._sums.last_pass = one.micro_batch == self._last_micro_batch
        torch.autograd.backward((made,), (gradient,))
        return None if given is None else given.grad


class Trainer:
    """Model, gradients and optimizer of one device under a plan."""

    def __init__(self, settings: RunSettings, mesh: Mesh) -> None:
        """Make everything; all processes of the run call this together."""
        plan, overlap = settings.plan, settings.sizes.overlap
        self.settings, self.mesh = settings, mesh
        place = mesh.coordinate("pipeline"), plan.pipeline, plan.virtual_stages
        self.stage = Stage(*place, plan.num_micro_batches, plan.schedule_name)
        if mesh.device.type == "cuda":  # fp32 numbers multiply in tf32 where the plan says so, and only there
            torch.set_float32_matmul_precision("high" if plan.precision == "tf32" else "highest")
        builder = Builder(settings, mesh)
        self.positions = builder.positions
        """Global positions of a sequence's tokens on this device."""
        self.chunks = tuple(Chunk(builder, layers) for layers in chunks_of(settings.sizes)[self.stage.index])
        self.weights = tuple(builder.store.weights)
        gathers = bool(overlap.parameter_gather)
        by_layer = bool(overlap.data_gradients) or plan.zero_stage == 2 or (gathers and plan.zero_stage == 1)
        buckets = make_buckets(self.weights, plan, mesh, by_layer=by_layer)
        dtype = DTYPES[settings.gradient_dtype]
        self.states = tuple(States(bucket, dtype) for bucket in buckets)
        self.sums = GradientSums(
            self.states,
            builder.store.scatters,
            mesh.group("tensor_x"),
            overlapped=bool(overlap.data_gradients),
            frees_gradients=plan.zero_stage == 2,
        )
        self.gather = ParameterGather(self.states, overlapped=gathers)
        self.optimizer = Optimizer(self.states, settings, mesh.group("world"), self.gather)
        self._connect()
        self._passes = _Passes(self.chunks, self.sums, plan.num_micro_batches - 1)
        self._order = self.stage.passes()
        self._messages = PipelineMessages(
            self.stage, mesh, (self._norm_tokens, settings.sizes.hidden), DTYPES[settings.dtype]
        )
        self.done = 0
        """Steps done."""

    @property
    def _norm_tokens(self) -> int:
        sizes = self.settings.sizes
        return sizes.tokens // sizes.plan.tensor_x if sizes.sequence_split else sizes.tokens

    def _connect(self) -> None:
        """Tell the layers who waits for their gradients, and who brings their weights."""
        for chunk in self.chunks:
            chunk.layer_finished = self.sums.layer_finished
            chunk.about_to_use = self.gather.need
        for states in self.states:
            for weight in states.bucket.weights if states.bucket.shards > 1 else ():
                weight.before_use = self._bring(next(iter(states.bucket.model_places)))

    def _bring(self, place: int) -> Callable[[], None]:
        return lambda: self.gather.need(place)

    def step(self, batches: Sequence[MicroBatch]) -> StepResult:
        """Train on one global batch.

        How many of its tokens count is summed over all devices together with the norm of the gradients, so that no
        collective goes before the passes: they take all tokens to count, and the update corrects for it.

        Args:
            batches: this device's micro-batches, in order.
        """
        number, tokens = self.done, self.settings.plan.global_batch * self.settings.sizes.sequence
        with recorder.step(number):
            self.sums.begin()
            self.gather.begin()
            self._passes.begin(batches, self.optimizer.scale.factor / tokens)
            overlap = bool(self.settings.sizes.overlap.pipeline)
            run_passes(self.stage, self._order, self._passes, self._messages, overlap_sends=overlap)
            self.sums.finish()
            update = self.optimizer.step(self._share_of_loss(), self._share_of_tokens(batches), tokens)
        self.done += 1
        return StepResult(
            number,
            update.loss_sum / max(update.tokens, 1),
            update.gradient_norm,
            update.tokens,
            update.updated,
        )

    def _share_of_tokens(self, batches: Sequence[MicroBatch]) -> torch.Tensor:
        """This device's part of the number of tokens that count: those of x, y and all stages hold the same."""
        plan = self.settings.plan
        with recorder.operation("gradient-norm", recorder.GRADIENT_NORM, StepPhase.OPTIMIZER):
            counted = torch.stack([(batch.targets != IGNORED).sum() for batch in batches]).sum()
            return counted.double() / (plan.tensor_x * plan.tensor_y * plan.pipeline)

    def _share_of_loss(self) -> torch.Tensor:
        """This device's part of the sum of losses over all devices."""
        plan, loss = self.settings.plan, self._passes.loss_sum
        if loss is None:
            return torch.zeros((), dtype=torch.float64, device=self.mesh.device)
        return loss / (plan.tensor_x * plan.tensor_y)

    # ---- checkpoints

    def save(self, folder: Path, data: str, sequences: int, *, keep: int = 2) -> Path:
        """Write a checkpoint of this moment; see `checkpoint.save`.

        Args:
            folder: of the run's checkpoints.
            data: identity of the data.
            sequences: seen so far.
            keep: how many stay.
        """
        from towtank.executor.checkpoint import folder as checkpoint

        settings, optimizer = self.settings, self.optimizer
        progress = checkpoint.Progress(
            step=self.done,
            sequences=sequences,
            updates=optimizer.updates,
            seed=settings.seed,
            data=data,
            model=settings.model.name,
            loss_scale=optimizer.scale.factor,
            steps_since_overflow=optimizer.scale.steps_since_overflow,
        )
        return checkpoint.save(folder, progress, self._parts(), keep=keep)

    def load(self, path: Path) -> "Progress":
        """Go on from a checkpoint, written under this plan or another one; see `checkpoint.load`."""
        from towtank.executor.checkpoint import folder as checkpoint

        progress = checkpoint.read_progress(path)
        checkpoint.load(path, self._parts())
        self.done = progress.step
        self.optimizer.resume(progress.updates, progress.loss_scale, progress.steps_since_overflow)
        return progress

    def _parts(self) -> list["Part"]:
        from towtank.executor.checkpoint.parts import Part

        return [Part(name, box, tensor) for states in self.states for name, box, tensor in states.tensors()]

    def settle(self) -> None:
        """Bring all weights of this device up to date, so that they may be read."""
        self.gather.finish()
