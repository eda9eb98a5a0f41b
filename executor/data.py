"""Text as tokens: one byte is one token, files are mapped into memory, and sequence n is the same in every plan.

A sequence has a number that counts from the beginning of training. Which tokens it holds depends on that number, on
the data and on the seed alone, so every plan and every number of devices trains on the same tokens in the same order,
and where training goes on needs no more than the number of sequences seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from towtank.executor.errors import DataError
from towtank.executor.goldfish import Goldfish

IGNORED: Final = -100
"""Target that does not count in the loss."""
END_OF_TEXT: Final = 256
"""Token after each file: the first one that is no byte."""
BYTE_VOCABULARY: Final = 257
"""Least vocabulary of a model that trains on text."""

Tokens = NDArray[np.int64]


class TokenSource(Protocol):
    """Where sequences come from."""

    @property
    def identity(self) -> str:
        """What must be the same where training goes on from a checkpoint."""

    def sequence(self, number: int) -> Tokens:
        """Tokens of one sequence and the one after it: shape [sequence + 1]."""


class Text:
    """Files of a folder one after the other, in the order of their paths, or one file.

    Every epoch has an order of its own, drawn from the seed; what is left over at the end, less than a sequence, is
    not used.
    """

    def __init__(self, path: Path, sequence: int, seed: int) -> None:
        """Map the files into memory.

        Raises:
            DataError: nothing is there to read, it cannot be read, or it is shorter than one sequence.
        """
        files = [_mapped(file) for file in files_of(path)]
        self._files = [file for file in files if file is not None]
        self._ends = np.cumsum([len(file) + 1 for file in self._files], dtype=np.int64)
        self._sequence, self._seed = sequence, seed
        total = int(self._ends[-1]) if self._files else 0
        self.num_sequences = (total - 1) // sequence
        if self.num_sequences < 1:
            raise DataError(
                f"data {path}: {total} tokens (bytes, and an end for each file) are less than one sequence of "
                f"{sequence} and the token after it; give more text, or a plan with a smaller `sequence`"
            )
        self.identity = f"text of {total} tokens in {len(self._files)} files, seed {seed}"

    def tokens(self, start: int, length: int) -> Tokens:
        """Tokens from position `start` of all the text: bytes, and END_OF_TEXT after each file."""
        found = np.empty(length, np.int64)
        done, file = 0, int(np.searchsorted(self._ends, start, side="right"))
        while done < length:
            data, end = self._files[file], int(self._ends[file])
            offset = start + done - (end - len(data) - 1)
            part = data[offset : offset + length - done]
            found[done : done + len(part)] = part
            done += len(part)
            if done < length:
                found[done] = END_OF_TEXT
                done += 1
            file += 1
        return found

    def sequence(self, number: int) -> Tokens:
        """Tokens of one sequence and the one after it: shape [sequence + 1]."""
        epoch, place = divmod(number, self.num_sequences)
        order = _order(self._seed, epoch, self.num_sequences)
        return self.tokens(int(order[place]) * self._sequence, self._sequence + 1)


def _mapped(file: Path) -> NDArray[np.uint8] | None:
    """The bytes of a file, mapped into memory; None of an empty one."""
    try:
        return np.memmap(file, dtype=np.uint8, mode="r") if file.stat().st_size else None
    except OSError as error:
        raise DataError(f"data {file}: cannot be read ({error.strerror}); give files that can") from error


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """Order of the sequences of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(length)


def files_of(path: Path) -> list[Path]:
    """Files of a folder and of the folders inside, by path; hidden ones are left out.

    Raises:
        DataError: nothing is there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"data {path}: no such file or folder; give a text file or a folder of text files")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise DataError(f"data {path}: the folder holds no files; give a text file or a folder of text files")
    return files


class Synthetic:
    """Made-up sequences for runs that only measure: runs of counting, interrupted at random.

    The next token is the present one and one more, of up to 256 tokens, but with one chance in eight it is any of
    them: a model learns that within some dozen steps, so that a falling loss means something.
    """

    def __init__(self, vocabulary: int, sequence: int, seed: int) -> None:
        self._tokens = min(vocabulary, 256)
        self._sequence, self._seed = sequence, seed
        self.identity = f"synthetic of {self._tokens} tokens, seed {seed}"

    def sequence(self, number: int) -> Tokens:
        """Tokens of one sequence and the one after it: shape [sequence + 1]."""
        length = self._sequence + 1
        generator = np.random.default_rng((self._seed, number))
        anew = generator.random(length) < 1 / 8
        anew[0] = True
        at = np.arange(length)
        since = at - np.maximum.accumulate(np.where(anew, at, 0))
        drawn = generator.integers(self._tokens, size=length)
        begin = drawn[np.maximum.accumulate(np.where(anew, at, 0))]
        found: Tokens = (begin + since) % self._tokens
        return found


@dataclass(frozen=True, slots=True)
class Data:
    """Sequences with their targets: the next token each, without those that the goldfish mask takes out."""

    source: TokenSource
    goldfish: Goldfish | None = None

    def batch(self, numbers: Sequence[int]) -> tuple[Tokens, Tokens]:
        """Tokens and targets of sequences by number; both of shape [len(numbers), sequence].

        Targets that do not count are IGNORED.
        """
        rows = np.stack([self.source.sequence(number) for number in numbers])
        tokens, targets = rows[:, :-1], rows[:, 1:]
        if self.goldfish is not None:
            targets = np.where(self.goldfish.dropped(targets), IGNORED, targets)
        return np.ascontiguousarray(tokens), np.ascontiguousarray(targets)


def load_data(
    path: Path | None, *, vocabulary: int, sequence: int, seed: int, goldfish: Goldfish | None = None
) -> Data:
    """Data of a run: text at `path`, or synthetic where there is none.

    Raises:
        DataError: nothing is there to read, it cannot be, it is too little, or bytes do not fit into the vocabulary.
    """
    if path is None:
        return Data(Synthetic(vocabulary, sequence, seed), goldfish)
    if vocabulary < BYTE_VOCABULARY:
        raise DataError(
            f"data {path}: text needs a vocabulary of {BYTE_VOCABULARY} (bytes and an end of text), but the "
            f"model has {vocabulary}"
        )
    return Data(Text(path, sequence, seed), goldfish)
