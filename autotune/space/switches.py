"""Overlap switches: each is a dimension of the space, all together one column of a table."""

from collections.abc import Callable, Iterator

import numpy as np

from towtank.autotune.space.dimensions import SWITCHES
from towtank.autotune.space.draft import Draft
from towtank.autotune.space.sameness import communicates, own_switch
from towtank.autotune.space.steps import Options, Rule, Step, beside, numbers, product_of
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Overlap


def _rules(switch: str) -> Callable[[TuningTask, Draft, Options], Iterator[Rule]]:
    def rules(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
        wish, stack = numbers(options), task.stack
        has = switch in stack.supports.overlaps
        yield f"overlap.{switch} = true needs a stack that has it, not {stack.name}", (wish != 1) | has
        there = beside(communicates(draft, switch, stack, task.machine.device))
        own = beside(own_switch(draft, switch, stack))
        # where the stack's own way is among the options, it is the name of what is the same
        another = (wish != own) if -1 in wish else np.ones_like(wish, np.bool_)
        yield "", np.where(there, another, np.arange(len(options)) == 0)

    return rules


SWITCH_STEPS = tuple(
    Step((f"overlap.{name}",), product_of(f"overlap.{name}"), _rules(name)) for name in SWITCHES
)
"""Steps of all switches."""


def joined(draft: Draft) -> Draft:
    """The rows with one column `overlap` in place of one for each switch."""
    names = [f"overlap.{switch}" for switch in SWITCHES]
    kind = np.zeros(draft.num_rows, np.int64)
    for name in names:
        if name in draft.codes:
            kind = kind * len(draft.choices[name]) + draft.codes[name]
    _, first, code = np.unique(kind, return_index=True, return_inverse=True)
    overlaps = tuple(
        Overlap(**{switch: draft.value(f"overlap.{switch}", int(row)) for switch in SWITCHES})
        for row in first
    )
    choices = {name: values for name, values in draft.choices.items() if name not in names}
    codes = {name: each for name, each in draft.codes.items() if name not in names}
    return Draft(
        draft.num_rows,
        choices | {"overlap": overlaps},
        codes | {"overlap": code.reshape(-1).astype(np.int16)},
    )
