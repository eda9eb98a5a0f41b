"""Every name that an export writes is known to the target: recorded options of its own parsers."""

from pathlib import Path

import pytest

from towtank.autotune.export.names import names_of
from towtank.autotune.export.targets import FRAMEWORKS
from towtank.simulator.stacks.load import load_stack

CAPTURES = Path(__file__).parents[2] / "captures" / "targets"


def recorded(target: str) -> set[str]:
    lines = (CAPTURES / f"{target}.txt").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


@pytest.mark.parametrize("target", FRAMEWORKS)
def test_names_are_those_of_the_target(target):
    known = recorded(target)
    if target in ("torchtitan", "deepspeed"):  # names without the section that they stand in
        known |= {name.rpartition(".")[2] for name in known}
    assert len(known) > 30
    assert sorted(set(names_of(target).names.values()) - known) == []


@pytest.mark.parametrize("target", FRAMEWORKS)
def test_each_name_stands_once(target):
    values = list(names_of(target).names.values())
    assert sorted(values) == sorted(set(values))


@pytest.mark.parametrize("target", FRAMEWORKS)
def test_the_stack_of_a_target_is_one_of_ours(target):
    assert load_stack(names_of(target).stack).name == names_of(target).stack
