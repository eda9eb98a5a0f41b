"""Overlap switches: each is a dimension of the space, all together one column of a table."""

from collections.abc import Callable, Iterator
from math import prod

import numpy as np

from towtank.autotune.space.dimensions import SWITCHES
from towtank.autotune.space.draft import Draft
from towtank.autotune.space.sameness import communicates, own_switch, passes_meet
from towtank.autotune.space.steps import Options, Rule, Step, beside, numbers, product_of
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Overlap


def _rules(switch: str) -> Callable[[TuningTask, Draft, Options], Iterator[Rule]]:
    def rules(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
        wish, stack = numbers(options), task.stack
        has = switch in stack.supports.overlaps
        yield f"overlap.{switch} = true needs a stack that has it, not {stack.name}", (wish != 1) | has
        if switch == "expert":
            possible = beside((draft.numbers("expert") == 1) | passes_meet(draft))
            yield "overlap.expert = true needs virtual_stages above 1 in a pipeline", (wish != 1) | possible
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
    sizes = [len(draft.choices[name]) for name in names]
    kind = np.zeros(draft.num_rows, np.int64)
    for name, size in zip(names, sizes, strict=True):
        kind = kind * size + draft.code(name)
    known = np.flatnonzero(np.bincount(kind, minlength=prod(sizes)))
    place = np.zeros(prod(sizes), np.int16)
    place[known] = np.arange(len(known))
    overlaps = []
    for codes in zip(*np.unravel_index(known, sizes), strict=True):
        chosen = [draft.choices[name][code] for name, code in zip(names, codes, strict=True)]
        overlaps.append(Overlap(**dict(zip(SWITCHES, chosen, strict=True))))
    choices = {name: values for name, values in draft.choices.items() if name not in names}
    columns = {name: each for name, each in draft.codes.items() if name not in names}
    return Draft(draft.num_rows, choices | {"overlap": tuple(overlaps)}, columns | {"overlap": place[kind]})
