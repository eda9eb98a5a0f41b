"""Documents of the memorisation experiment, and the order in which training sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from towtank.executor.data import END_OF_TEXT, Text, Tokens
from towtank.executor.errors import DataError

BYTES: Final = range(1, 256)
"""Of random documents: so many that two in a row are seldom those of another place; not 0, which would make the
product of the goldfish hash 0."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents by bucket, and others to warm up on."""

    buckets: tuple[Tokens, ...]
    """One a bucket: [documents, length]."""
    unrelated: Tokens
    """[documents, length]."""


def corpus_of(
    path: Path | None, *, buckets: int, documents: int, unrelated: int, length: int, seed: int
) -> Corpus:
    """Draw documents.

    Args:
        path: text that they are cut from, in places that do not overlap; None: random bytes, all alike probable, so
            that nothing but memory can tell how one goes on.
        buckets: how many.
        documents: of each bucket.
        unrelated: those of the warm-up.
        length: tokens of each.
        seed: of the bytes, or of which pieces of the text are taken.

    Raises:
        DataError: the text cannot be read, or is too short.
    """
    total = buckets * documents + unrelated
    generator = np.random.default_rng(seed)
    if path is None:
        found = generator.integers(BYTES.start, BYTES.stop, size=(total, length))
    else:
        found = _pieces(path, total, length, generator)
    end = buckets * documents
    return Corpus(tuple(found[:end].reshape(buckets, documents, length)), found[end:])


def _pieces(path: Path, total: int, length: int, generator: np.random.Generator) -> Tokens:
    text = Text(path, length, seed=0)
    if text.num_sequences < total:
        raise DataError(
            f"data {path}: holds {text.num_sequences} pieces of {length} bytes, but {total} are needed: documents of "
            f"all buckets and of the warm-up; give more text, or ask for fewer or shorter documents"
        )
    places = generator.permutation(text.num_sequences)[:total]
    return np.stack([text.tokens(int(place) * length, length) for place in places])


def epochs(times: Sequence[int], documents: int, seed: int) -> list[tuple[int, int]]:
    """(Bucket, document) in the order in which training sees them.

    There are as many epochs as the largest of `times`. A bucket that is seen n times is in the last n of them, so
    that all were last seen equally long ago. Each epoch has an order of its own.
    """
    generator = np.random.default_rng((seed, 1))
    found = []
    for left in range(max(times), 0, -1):
        members = [
            (bucket, number) for bucket, n in enumerate(times) if n >= left for number in range(documents)
        ]
        found += [members[place] for place in generator.permutation(len(members))]
    return found


class Readings:
    """Documents in the order of training, as a source of sequences: an end of text, then the document."""

    def __init__(self, corpus: Corpus, times: Sequence[int], warm_up: int, seed: int) -> None:
        """Lay out the order.

        Args:
            corpus: the documents.
            times: how often each bucket is seen.
            warm_up: how often the unrelated documents are seen, all of them before the first of a bucket.
            seed: of the order.
        """
        generator = np.random.default_rng((seed, 2))
        self._rows = [
            corpus.unrelated[number]
            for _ in range(warm_up)
            for number in generator.permutation(len(corpus.unrelated))
        ]
        self.warm_up_steps = len(self._rows)
        documents = len(corpus.buckets[0])
        self._rows += [corpus.buckets[bucket][number] for bucket, number in epochs(times, documents, seed)]
        self.identity = f"{len(self._rows)} documents of a memorisation experiment, seed {seed}"

    def __len__(self) -> int:
        """Sequences."""
        return len(self._rows)

    def sequence(self, number: int) -> Tokens:
        """Tokens of one sequence and the one after it: shape [length + 1]."""
        return with_start(self._rows[number])


def with_start(documents: Tokens) -> Tokens:
    """[..., length] to [..., length + 1]: an end of text goes before, so that every token is a target."""
    start = np.full((*documents.shape[:-1], 1), END_OF_TEXT)
    return np.concatenate((start, documents), axis=-1)
