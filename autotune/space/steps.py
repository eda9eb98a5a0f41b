"""How the space grows: dimension by dimension, each with the rules that a row and a value must keep together.

The rules are those of `simulator.plan_rules` and `simulator.stacks.rules`, in columns, and the usual limits of
`dimensions`. A step comes as early as its rules can be checked: nothing illegal is multiplied by what follows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.space.dimensions import values
from towtank.autotune.space.draft import Draft, Mask, Numbers
from towtank.autotune.task import TuningTask

Rule = tuple[str, Any]
"""What must hold, as a sentence, and where it does: a mask that broadcasts to [rows, options]."""
Options = Sequence[tuple[Any, ...]]
"""Values of the fields of a step, one tuple for each combination."""


OF_DEVICES = "of the devices"
"""How rules end that only say that degrees multiply to the number of devices."""


@dataclass(frozen=True, slots=True)
class Step:
    """One extension of the rows."""

    names: tuple[str, ...]
    """Fields that get their values here."""
    options: Callable[[TuningTask], Options]
    rules: Callable[[TuningTask, Draft, Options], Iterator[Rule]]


def product_of(*names: str) -> Callable[[TuningTask], Options]:
    """Options of a step: all combinations of the values of these dimensions."""

    def options(task: TuningTask) -> Options:
        found: list[tuple[Any, ...]] = [()]
        for name in names:
            found = [(*before, each) for before in found for each in values(task, name)]
        return found

    return options


def numbers(options: Options, position: int = 0) -> Numbers:
    """One field of all options as numbers, None as -1; shape [options]."""
    return np.array([-1 if each[position] is None else int(each[position]) for each in options], np.int64)


def is_value(options: Options, value: Any, position: int = 0) -> Mask:
    """Options whose field has this value, shape [options]."""
    return np.array([each[position] == value for each in options], np.bool_)


def beside(rows: NDArray[Any]) -> NDArray[Any]:
    """Figures of rows as a column beside options: shape [rows, 1]."""
    return rows[:, None]


def first_of_each(given: Numbers) -> Mask:
    """Options that are the first with their number, shape [options]."""
    first = np.zeros(len(given), np.bool_)
    first[np.unique(given, return_index=True)[1]] = True
    return first


def left_of_devices(task: TuningTask, draft: Draft, *degrees: str) -> NDArray[Any]:
    """Devices that the degrees chosen so far leave, shape [rows, 1]."""
    left: NDArray[Any] = beside(task.devices // draft.product(*degrees))
    return left


def sequence_of(task: TuningTask) -> int:
    """Tokens of one sequence."""
    return task.sequence if task.sequence is not None else task.model.sequence
