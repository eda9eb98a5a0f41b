"""The loop of a run on one rank: data, steps, checkpoints, and what is measured meanwhile."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.executor.data import Data, load_data
from towtank.executor.errors import DataError, NonFiniteLossError
from towtank.executor.launching.environment import Process
from towtank.executor.launching.progress import StepProgress
from towtank.executor.launching.request import RunOutcome, RunRequest
from towtank.executor.launching.results import outcome_of
from towtank.executor.launching.signals import Termination, termination
from towtank.executor.measured.clocks import clock_of
from towtank.executor.measured.host_memory import give_back_memory
from towtank.executor.measured.memory import PeakMemory
from towtank.executor.measured.recorder import Recorder, recording
from towtank.executor.measured.run_record import MeasuredStep
from towtank.executor.training import batches_of, counted_tokens

if TYPE_CHECKING:
    from towtank.executor.distributed.mesh import Mesh
    from towtank.executor.step.trainer import Trainer


def train_request(request: RunRequest, place: Process, device: Any, threads: int) -> RunOutcome | None:
    """Train as a request asks; the process group of the run exists. Rank 0 returns the outcome.

    Raises:
        ExecutorError: data or checkpoint cannot be used.
        NonFiniteLossError: the loss of a step is no number.
    """
    from towtank.executor.distributed.mesh import Mesh
    from towtank.executor.step.trainer import Trainer

    settings = request.settings
    data = load_data(
        request.data,
        vocabulary=settings.model.vocab,
        sequence=settings.sizes.sequence,
        seed=settings.seed,
        goldfish=request.goldfish,
    )
    mesh = Mesh(settings.plan, device)
    memory = PeakMemory(device.type)
    run = Run(request, place, mesh, Trainer(settings, mesh), data, memory)
    return run.train(threads)


@dataclass(slots=True)
class Run:
    """A run under way on one rank."""

    request: RunRequest
    place: Process
    mesh: "Mesh"
    trainer: "Trainer"
    data: Data
    memory: PeakMemory

    def train(self, threads: int) -> RunOutcome | None:
        """Go on from a checkpoint if asked, train, save, and say what came of it."""
        first, sequences = self._begin()
        request, settings = self.request, self.request.settings
        recorder = None
        if request.records or request.trace is not None:
            recorder = Recorder(clock_of(self.mesh.device.type), keep_slices=request.trace is not None)
        progress = StepProgress(settings, first, quiet=request.quiet or self.place.rank != 0)
        steps: list[MeasuredStep] = []
        saved: Path | None = None
        ended = False
        peak: float | None = None
        give_back_memory()
        self.memory.forget()
        with termination() as asked, recording(recorder):
            for number in range(first, settings.steps):
                steps.append(self._step(number, sequences, recorder))
                sequences += settings.plan.global_batch
                progress.show(steps[-1])
                ended = self._agree(asked)
                if self._saves(number + 1, ended):
                    # what saving takes is no part of the step that a prediction is about
                    peak = self.memory.peak_bytes() if saved is None else peak
                    saved = self._save(sequences)
                if ended:
                    break
        progress.finish()
        self.trainer.settle()
        return outcome_of(
            request,
            terminated=ended,
            first=first,
            steps=steps,
            recorder=recorder,
            saved=saved,
            peak_memory_bytes=self.memory.peak_bytes() if saved is None else peak,
            threads=threads,
        )

    def _begin(self) -> tuple[int, int]:
        """Steps done and sequences seen before."""
        request = self.request
        if not request.resume or request.checkpoint is None:
            return 0, 0
        from towtank.executor.checkpoint import folder as checkpoint

        path = checkpoint.latest(request.checkpoint)
        if path is None:
            if self.place.rank == 0:
                print(f"towtank: no checkpoint in {request.checkpoint}: training begins", file=sys.stderr)
            return 0, 0
        progress = self.trainer.load(path)
        if progress.data != self.data.source.identity:
            raise DataError(
                f"checkpoint {path} goes on with {progress.data}, but the data are {self.data.source.identity}; give "
                "the same data and seed, or begin anew without --resume"
            )
        return progress.step, progress.sequences

    def _step(self, number: int, sequences: int, recorder: Recorder | None) -> MeasuredStep:
        """One step. Numbers for people count from 1."""
        settings = self.request.settings
        batches = batches_of(settings, self.mesh, self.trainer.positions, self.data, number, sequences)
        begin = time.perf_counter()
        result = self.trainer.step(batches, counted_tokens(settings, self.data))
        seconds = time.perf_counter() - begin
        if recorder is not None:
            recorder.steps[:-1] = [
                replace(one, slices=()) if one.slices else one for one in recorder.steps[:-1]
            ]
        if not result.finite:
            raise NonFiniteLossError(
                f"step {number + 1} of {settings.steps}: the loss is {result.loss}, the gradient norm "
                f"{result.gradient_norm}; lower --learning-rate, clip gradients, or use bf16 or fp32. Checkpoints "
                "before it are as they were"
            )
        return MeasuredStep(number + 1, seconds, result.loss, result.gradient_norm)

    def _agree(self, asked: Termination) -> bool:
        """Whether any rank was asked to end: all learn it after the same step."""
        import torch
        import torch.distributed as dist

        if self.place.world_size == 1:
            return asked.asked
        told = torch.tensor([int(asked.asked)], device=self.mesh.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told.item())

    def _saves(self, done: int, ended: bool) -> bool:
        """Whether to write a checkpoint after so many steps."""
        request = self.request
        if request.checkpoint is None:
            return False
        regular = request.save_every is not None and done % request.save_every == 0
        return ended or regular or done == request.settings.steps

    def _save(self, sequences: int) -> Path:
        assert self.request.checkpoint is not None
        return self.trainer.save(self.request.checkpoint, self.data.source.identity, sequences)
