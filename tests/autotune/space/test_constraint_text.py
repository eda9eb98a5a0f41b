"""Constraints of the command line: what they mean, and one clear message for all that is wrong."""

import pytest

from towtank.autotune.errors import TuningError
from towtank.autotune.space.constraint_text import read_constraints
from towtank.autotune.space.dimensions import BY_NAME
from towtank.simulator.plan import DEFAULT_RANK_ORDER


def test_values_limits_and_widening() -> None:
    found = read_constraints(
        fix=["tensor_x=4|8", "overlap.tensor=true", "recompute=full|none", "zero_stage=0"],
        least=["data=2"],
        most=["pipeline=16"],
        free=["rank_order"],
    )
    assert found.fixed == {
        "tensor_x": (4, 8), "overlap.tensor": (True,), "recompute": ("full", "none"), "zero_stage": (0,)
    }  # fmt: skip
    assert found.least == {"data": 2}
    assert found.most == {"pipeline": 16}
    assert found.free == {"rank_order"}


def test_a_rank_order_is_named_innermost_first() -> None:
    text = ",".join(reversed(DEFAULT_RANK_ORDER))
    for written in (text, f"[{text}]"):
        assert read_constraints(fix=[f"rank_order={written}"]).fixed["rank_order"] == (
            tuple(reversed(DEFAULT_RANK_ORDER)),
        )


def test_all_dimensions_can_be_free_but_those_fixed() -> None:
    assert read_constraints(fix=["tensor_x=8"], free=["all"]).free == set(BY_NAME) - {"tensor_x"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fix": ["tensorx=8"]}, ["--fix tensorx", "did you mean 'tensor_x'", "known: "]),
        ({"fix": ["tensor_x"]}, ["'tensor_x' is not FIELD=VALUE"]),
        ({"fix": ["tensor_x=0"]}, ["tensor_x=0", "whole number from 1 to 2147483647"]),
        ({"fix": ["data=8|99999999999999999999"]}, ["data=99999999999999999999", "from 1 to 2147483647"]),
        ({"fix": ["tensor_x=4|x"]}, ["tensor_x=x", "whole number"]),
        ({"fix": ["sequence_parallel=yes"]}, ["must be true or false"]),
        ({"fix": ["recompute=ful"]}, ["must be one of none, selective, full", "did you mean 'full'"]),
        ({"fix": ["rank_order=data,pipeline"]}, ["must name each of tensor_y"]),
        ({"fix": ["tensor_x=4", "tensor_x=8"]}, ["given twice", "tensor_x=4|8"]),
        ({"most": ["schedule=4"]}, ["--max schedule", "has no order", "use --fix schedule"]),
        ({"most": ["pipeline=many"]}, ["--max pipeline=many", "whole number"]),
        ({"least": ["data=8"], "most": ["data=4"]}, ["--min data=8 is above --max data=4"]),
        ({"fix": ["data=8"], "most": ["data=4"]}, ["--fix data=8 lies outside"]),
        ({"fix": ["data=8"], "free": ["data"]}, ["--free data and --fix data contradict"]),
        ({"free": ["rankorder"]}, ["--free rankorder", "did you mean 'rank_order'"]),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, list[str]], words: list[str]) -> None:
    with pytest.raises(TuningError) as caught:
        read_constraints(**options)
    assert [word for word in words if word not in str(caught.value)] == []


def test_all_faults_come_at_once() -> None:
    with pytest.raises(TuningError) as caught:
        read_constraints(fix=["tensorx=8", "micro_batch=two"], most=["pipeline=-1"], free=["nothing"])
    assert len(caught.value.faults) == 4
