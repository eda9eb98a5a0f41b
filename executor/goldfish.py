"""The mask of the goldfish loss: which targets are left out of the loss, so that text is not learned by heart.

Hans et al., "Be like a Goldfish, Don't Memorize!", NeurIPS'24, section 3.1; the hash is that of their code
(goldfish-loss, lit_gpt/utils.py, apply_goldfish, strategy "hash-table"), and of Singh et al., SC'24, section VIII.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from towtank.executor.errors import DataError

_TABLE_SIZE: Final = 1_000_003
_TABLE_SEED: Final = 2_971_215_073


@dataclass(frozen=True, slots=True)
class Goldfish:
    """One target in k is dropped, by a hash of the h targets that end with it.

    The same h tokens are treated alike wherever they stand, so a passage that is repeated loses the same tokens every
    time and nothing can be put together from its copies.

    Raises:
        DataError: k or h is no number that the mask is defined for.
    """

    k: int
    h: int = 13

    def __post_init__(self) -> None:
        if self.k < 2:
            raise DataError(
                f"goldfish k={self.k} must be 2 or more: one target in k is dropped; leave the mask out for none"
            )
        if self.h < 1:
            raise DataError(f"goldfish h={self.h} must be 1 or more: the targets that the hash is made of")

    def dropped(self, targets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each target is dropped; `targets` and the answer have the shape [sequences, length].

        key[j] = product of targets[j - h + 1 .. j] in 64-bit integers that wrap; target j is dropped where
        table[key[j] mod 1000003] < 1/k. The first h - 1 targets of a sequence are kept.
        """
        found = np.zeros(targets.shape, bool)
        if targets.shape[1] >= self.h:
            windows = np.lib.stride_tricks.sliding_window_view(targets, self.h, axis=1)
            keys = np.multiply.reduce(windows, axis=-1, dtype=np.int64)
            found[:, self.h - 1 :] = _table()[keys % _TABLE_SIZE] < np.float32(1 / self.k)
        return found


@cache
def _table() -> NDArray[np.float32]:
    """Numbers between 0 and 1; drawn on a CPU everywhere, since generators of other devices draw others."""
    import torch

    generator = torch.Generator().manual_seed(_TABLE_SEED)
    table: NDArray[np.float32] = torch.rand(_TABLE_SIZE, generator=generator).numpy()
    return table
