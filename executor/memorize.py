"""Catastrophic memorisation at the size of a laptop: what a model can say by heart of texts it has seen so often.

The experiment of Singh et al., SC'24, section VIII: documents in buckets that are seen 0, 1, 4 or 6 times, then a
greedy continuation of each one's beginning, and how many end exactly as the document does; with the plain loss and
with the goldfish loss (Hans et al., NeurIPS'24). The executor's own layers, losses and optimizer train the model.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from towtank.executor.data import BYTE_VOCABULARY, Data, Tokens
from towtank.executor.distributed.mesh import Mesh
from towtank.executor.errors import NonFiniteLossError
from towtank.executor.goldfish import Goldfish
from towtank.executor.layers.batch import cut
from towtank.executor.memorize_documents import Corpus, Readings, corpus_of, with_start
from towtank.executor.settings import RunSettings
from towtank.executor.step.trainer import Trainer
from towtank.executor.training import train
from towtank.simulator.models.records import Attention, Mlp, ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

HEAD_SIZE: Final = 32
_THREADS: Final = 2
_BETAS: Final = (0.9, 0.99)
"""Of AdamW: with one document a step, squares of gradients want a longer mean than that of large batches."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is read how often, by which model. Checked by `faults`."""

    data: Path | None = None
    """Text that documents are cut from; None: random bytes."""
    seed: int = 0
    """Of documents, their order and initial weights."""
    times: tuple[int, ...] = (0, 1, 4, 6)
    """How often the documents of each bucket are seen."""
    documents: int = 8
    """Of each bucket."""
    length: int = 64
    """Tokens (bytes) of a document."""
    answer: int = 16
    """Last tokens of a document, which must come out exactly."""
    unrelated: int = 48
    """Documents of the warm-up, in no bucket."""
    warm_up: int = 34
    """How often those are seen before the first document of a bucket."""
    layers: int = 2
    hidden: int = 192
    learning_rate: float = 1e-3

    def faults(self) -> list[str]:
        """Everything that is wrong with the numbers, as sentences."""
        least = {
            "seed": 0, "documents": 1, "length": 2, "answer": 1, "unrelated": 1, "warm_up": 0, "layers": 1,
        }  # fmt: skip
        found = [
            f"{name} = {getattr(self, name)}, but it must be {lowest} or more"
            for name, lowest in least.items()
            if getattr(self, name) < lowest
        ]
        if not self.times or min(self.times) < 0 or max(self.times) < 1:
            found.append(
                f"times = {', '.join(map(str, self.times)) or 'none'}, but they must be 0 or more, and one of them 1 "
                f"or more"
            )
        if len(set(self.times)) != len(self.times):
            found.append(f"times = {', '.join(map(str, self.times))}, but a bucket is named twice")
        if self.answer >= self.length >= 2:
            found.append(
                f"answer = {self.answer} leaves nothing of length = {self.length} to begin with; make it smaller"
            )
        if self.hidden < HEAD_SIZE or self.hidden % HEAD_SIZE:
            found.append(f"hidden = {self.hidden}, but it must be a multiple of {HEAD_SIZE}, the head size")
        if not 0 < self.learning_rate < float("inf"):
            found.append(f"learning_rate = {self.learning_rate}, but it must be more than 0")
        return found


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a model says of the documents that it has seen so often."""

    times: int
    documents: int
    exact: int
    """Documents whose last tokens all came out."""
    right_tokens: float
    """Share of the last tokens that are the most probable ones after the true text before them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One training and what it left in memory."""

    goldfish: Goldfish | None
    buckets: tuple[Bucket, ...]
    last_loss: float
    """Of the last step, over the tokens that count, in nats a token."""
    dropped: float
    """Share of the targets of the buckets that the mask took out of the loss."""


def settings_of(experiment: Experiment, steps: int) -> RunSettings:
    """A Llama on one CPU device in fp32, one document a step."""
    heads = experiment.hidden // HEAD_SIZE
    model = ModelSpec(
        name="memorize-llama",
        num_layers=experiment.layers,
        hidden=experiment.hidden,
        vocab=BYTE_VOCABULARY,
        sequence=experiment.length,
        attention=Attention(heads=heads, kv_heads=heads, head_dim=HEAD_SIZE),
        mlp=Mlp(hidden=4 * experiment.hidden, gated=True),
        experts=None,
        norm="rmsnorm",
        norm_bias=False,
        positions="rope",
        max_positions=experiment.length,
        tied_embeddings=False,
    )
    plan = Plan(micro_batch=1, global_batch=1, precision="fp32")
    return RunSettings(
        model, plan, load_stack("towtank-executor"), "fp32",
        seed=experiment.seed, steps=steps, learning_rate=experiment.learning_rate, weight_decay=0.0, betas=_BETAS,
    )  # fmt: skip


def corpus(experiment: Experiment) -> Corpus:
    """The documents.

    Raises:
        DataError: the text cannot be read, or is too short.
    """
    return corpus_of(
        experiment.data,
        buckets=len(experiment.times),
        documents=experiment.documents,
        unrelated=experiment.unrelated,
        length=experiment.length,
        seed=experiment.seed,
    )


def memorize(
    experiment: Experiment,
    masks: Iterable[Goldfish | None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Warm up once with the plain loss; then read the buckets from there, once with each mask.

    Args:
        experiment: without faults.
        masks: None is the plain loss.
        progress: told (steps done, steps in all).

    Raises:
        DataError: the text cannot be read, or is too short.
        NonFiniteLossError: the learning rate is too high.
    """
    masks, documents = tuple(masks), corpus(experiment)
    readings = Readings(documents, experiment.times, experiment.warm_up, experiment.seed)
    first, last = readings.warm_up_steps, len(readings)
    total = first + len(masks) * (last - first)
    found = []

    def told(before: int) -> Callable[[int], None]:
        return lambda step: progress(before + step, total)

    with TemporaryDirectory(prefix="towtank-memorize-") as folder, _few_threads():
        start = _trainer(experiment, first)
        _read(start, Data(readings), told(0))
        kept = start.save(Path(folder), readings.identity, first)
        for number, mask in enumerate(masks):
            trainer = _trainer(experiment, last)
            trainer.load(kept)
            before = number * (last - first)
            loss = _read(trainer, Data(readings, mask), told(before))
            buckets = recall(trainer, documents, experiment)
            found.append(Outcome(mask, buckets, loss, _dropped(documents, experiment, mask)))
    return found


@contextmanager
def _few_threads() -> Iterator[None]:
    """Matrices as small as these are slower on many threads, and sums would differ with their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, _THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trainer(experiment: Experiment, steps: int) -> Trainer:
    settings = settings_of(experiment, steps)
    return Trainer(settings, Mesh(settings.plan))


def _read(trainer: Trainer, data: Data, tell: Callable[[int], None]) -> float:
    """Train to the end of the trainer's steps; the loss of the last one."""
    loss = float("nan")
    for result in train(trainer.settings, trainer.mesh, data, trainer=trainer):
        if not result.finite:
            raise NonFiniteLossError(
                f"step {result.step + 1}: loss {result.loss}, gradient norm {result.gradient_norm}; take a lower "
                f"learning rate"
            )
        loss = result.loss
        tell(trainer.done)
    return loss


def _dropped(documents: Corpus, experiment: Experiment, mask: Goldfish | None) -> float:
    seen = [bucket for bucket, times in zip(documents.buckets, experiment.times, strict=True) if times]
    return 0.0 if mask is None else float(np.mean([mask.dropped(bucket) for bucket in seen]))


def recall(trainer: Trainer, documents: Corpus, experiment: Experiment) -> tuple[Bucket, ...]:
    """What the model says of each bucket."""
    found = []
    last = slice(-experiment.answer, None)
    for times, bucket in zip(experiment.times, documents.buckets, strict=True):
        right = most_probable(trainer, bucket)[:, last] == bucket[:, last]
        found.append(Bucket(times, len(bucket), exact_matches(right), float(right.mean())))
    return tuple(found)


def exact_matches(right: NDArray[np.bool_]) -> int:
    """Documents of which every token is right; `right`: [documents, tokens]."""
    return int(right.all(axis=1).sum())


def most_probable(trainer: Trainer, documents: Tokens) -> Tokens:
    """The most probable token at each place after the true ones before it; both [documents, length].

    A greedy continuation of a document's beginning is exactly the document where all of these are the document's: as
    long as each token is right, what the next one is predicted from is the true text. So one pass over the whole
    document tells of exact match what a pass for each token would.
    """
    rows = torch.from_numpy(with_start(documents))
    batch = cut(rows[:, :-1], rows[:, 1:], 0, trainer.positions, trainer.done)
    logits = trainer.chunks[0].logits(batch)
    found: Tokens = logits.argmax(1).view(documents.shape).numpy()
    return found
