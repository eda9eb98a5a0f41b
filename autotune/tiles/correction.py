"""What measurements say of a model's mistakes: tiles that share parameters share part of them.

Mistakes are logarithms of measured over predicted time. They are taken for a Gaussian process with the same mean
everywhere, in which two tiles' mistakes correlate by the share of parameters that they have in common (Rasmussen and
Williams, Gaussian Processes for Machine Learning, 2006, equations 2.25 and 2.26).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from towtank.kernels.records import Tile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MODEL_ERROR = 0.07
"""Standard deviation of the mistakes: the model's usual relative error (`python -m towtank.autotune.tiles.fit`)."""
NOISE = 0.02
"""Of a measurement, relative."""


class Correction:
    """Predictions of all tiles of a space, in the light of what was measured."""

    def __init__(self, tiles: Sequence[Tile], predicted: Sequence[float]) -> None:
        import numpy as np

        names = [name for name in tiles[0] if len({tile[name] for tile in tiles}) > 1]
        self._values = np.array([[tile[name] for name in names] for tile in tiles])
        self._log = np.log(np.array(predicted))
        self._places: list[int] = []
        self._mistakes: list[float] = []

    def add(self, place: int, seconds: float) -> None:
        """Note the measured time of a tile, by its place in the space."""
        import math

        self._places.append(place)
        self._mistakes.append(math.log(seconds) - float(self._log[place]))

    def seconds(self, optimism: float = 0.0) -> "Array":
        """Corrected seconds of every tile, less `optimism` standard deviations of what is not known of them."""
        import numpy as np

        if not self._places:
            return np.asarray(np.exp(self._log))
        common = self._common(self._places)
        inverse = np.linalg.inv(common[self._places] + NOISE**2 * np.eye(len(self._places)))
        mistakes = np.array(self._mistakes)
        mean = float(np.median(mistakes))
        expected = mean + common @ inverse @ (mistakes - mean)
        variance = MODEL_ERROR**2 - np.einsum("ij,jk,ik->i", common, inverse, common)
        return np.asarray(np.exp(self._log + expected - optimism * np.sqrt(np.maximum(variance, 0.0))))

    def _common(self, places: Sequence[int]) -> "Array":
        """Covariance of every tile's mistake with those of some."""
        import numpy as np

        shares = np.empty((len(self._values), len(places)))
        for column, place in enumerate(places):
            shares[:, column] = (self._values == self._values[place]).mean(axis=1)
        return MODEL_ERROR**2 * shares
