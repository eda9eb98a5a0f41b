"""Fit the rates of stacks and devices inside training steps: one factor a stack, one a device, nothing per row.

log(rate) = log(stack) + log(device) is fitted to the rates that runs imply (`rates`) by least absolute deviations,
robust against runs that something else slowed down. A row weighs 1 / sqrt(rows of its source on its stack and
device), so that a source with many rows does not decide alone. The anchor is a device whose factor is 1 by
definition.

Each stack is drawn to a level that all stacks share, which is fitted as well, and each device to 1, by one row more
of weight `PULL` (the mode under a Laplace prior, as in the lasso: Tibshirani, J. R. Stat. Soc. B 58, 1996): a factor
departs only as far as its rows outweigh that. Names with too few rows stay there (`free_names`), and so does
what a fit has not seen.

`python -m towtank.validation.fit` prints the fit and how sure it is.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from towtank.hardware_profiles.calibration import BOUNDS
from towtank.validation.rates import Observation

ANCHOR = "a100-80gb-sxm"
PULL = 0.1
"""Weight of the row that draws a factor; a source with a single row weighs 1. Errors of left-out groups hardly tell
weights from 0 to 1 apart (0.1 has the least mean) and grow beyond."""
MIN_ROWS = 10
"""Rows from which a factor is free. Fewer do not tell it from the scatter of runs."""
MIN_GROUPS = 3
"""Groups of source, model and mapping from which a factor is free: one sweep is not evidence for a factor."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted factors. What is not free is not in `stacks` and `devices`."""

    level: float
    """Rate that stacks are drawn to, and that of a stack without factor."""
    stacks: Mapping[str, float]
    devices: Mapping[str, float]

    @property
    def num_parameters(self) -> int:
        """Free parameters, the level among them."""
        return 1 + len(self.stacks) + len(self.devices)

    def stack(self, name: str) -> float:
        """Factor of a stack; the level if it has none."""
        return self.stacks.get(name, self.level)

    def device(self, name: str) -> float:
        """Factor of a device; 1 if it has none."""
        return self.devices.get(name, 1.0)

    def rate(self, stack: str, device: str) -> float:
        """Rate inside training steps over the rate of the profile."""
        return self.stack(stack) * self.device(device)


@dataclass(frozen=True, slots=True)
class Free:
    """Names whose factors are free."""

    stacks: tuple[str, ...]
    devices: tuple[str, ...]


def free_names(observations: Collection[Observation]) -> Free:
    """Stacks and devices with enough rows and groups for a factor of their own; the anchor is none."""
    stacks, devices = (_enough(observations, kind) for kind in ("stack", "device"))
    return Free(stacks, tuple(name for name in devices if name != ANCHOR))


def _enough(observations: Collection[Observation], kind: str) -> tuple[str, ...]:
    groups: dict[str, list[str]] = defaultdict(list)
    for each in observations:
        groups[getattr(each, kind)].append(each.group)
    return tuple(
        sorted(name for name, own in groups.items() if len(own) >= MIN_ROWS and len(set(own)) >= MIN_GROUPS)
    )


def fit(observations: Sequence[Observation], free: Free | None = None) -> Fit:
    """Fit by linear programming (scipy, HiGHS); `free` are the free factors, by default those of `free_names`.

    Minimises sum_i w_i |log(rate_i) - log(stack_i) - log(device_i)| + PULL (sum_s |log(s) - log(level)| +
    sum_d |log(d)|), all factors within `BOUNDS`. An observation may stand several times.

    Raises:
        ValueError: there are no observations.
    """
    if not observations:
        raise ValueError("a fit needs at least one observation")
    free = free or free_names(observations)
    stacks = {name: number for number, name in enumerate(free.stacks, start=1)}
    devices = {name: number for number, name in enumerate(free.devices, start=1 + len(stacks))}
    rows = Counter((each.source, each.stack, each.device) for each in observations)
    design: list[tuple[int, ...]] = []
    target, weight = [], []
    for each in observations:
        columns = (stacks.get(each.stack, 0), devices.get(each.device))
        design.append(tuple(column for column in columns if column is not None))
        target.append(log(each.rate))
        weight.append(rows[each.source, each.stack, each.device] ** -0.5)
    logs = _solve(design, target, weight, 1 + len(stacks) + len(devices), tuple(stacks.values()))
    return Fit(
        exp(logs[0]),
        {name: exp(logs[column]) for name, column in stacks.items()},
        {name: exp(logs[column]) for name, column in devices.items()},
    )


def _solve(
    design: Sequence[tuple[int, ...]],
    target: Sequence[float],
    weight: Sequence[float],
    columns: int,
    stacks: Collection[int],
) -> list[float]:
    """Logarithms of the factors; column 0 is the level, `design` has the columns that are added up in each row."""
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, eye, hstack

    entries = [(row, column, 1.0) for row, own in enumerate(design) for column in own]
    for row, column in enumerate(range(1, columns), start=len(design)):
        entries.append((row, column, 1.0))
        if column in stacks:
            entries.append((row, 0, -1.0))
    size = len(design) + columns - 1
    row_of, column_of, value = zip(*entries, strict=True)
    matrix = csr_matrix((value, (row_of, column_of)), shape=(size, columns))
    weights = np.r_[weight, np.full(columns - 1, PULL)]
    solved: Any = linprog(
        np.r_[np.zeros(columns), weights, weights],
        A_eq=hstack([matrix, eye(size), -eye(size)], format="csr"),
        b_eq=np.r_[target, np.zeros(columns - 1)],
        bounds=[(log(BOUNDS[0]), log(BOUNDS[1]))] * columns + [(0, None)] * (2 * size),
    )
    if solved.x is None:
        raise RuntimeError(f"the linear programme of the fit was not solved: {solved.message}")
    return [float(value) for value in solved.x[:columns]]
