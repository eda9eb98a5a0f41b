"""Samplers by name."""

import importlib.util

import pytest

from towtank.autotune.study.records import StudyError
from towtank.autotune.study.samplers import SAMPLERS, check_sampler, make_sampler


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(StudyError, match=r"nsga2 is unknown; did you mean 'nsgaii'.*known: tpe, random"):
        check_sampler("nsga2")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_made_or_says_what_it_lacks(name: str) -> None:
    try:
        check_sampler(name)
    except StudyError as error:
        package = {"cmaes": "cmaes", "gp": "torch"}[name]
        assert importlib.util.find_spec(package) is None
        assert f"needs {package}, which is not installed; `pip install {package}`" in str(error)
        return
    assert type(make_sampler(name, 1)).__name__.lower().startswith(name.replace("-", "")[:5])


def test_samplers_say_what_they_cannot_do() -> None:
    with pytest.raises(StudyError, match="tries every value, but a parameter is a real number"):
        check_sampler("brute-force", finite=False)
    if importlib.util.find_spec("cmaes") is not None:
        with pytest.raises(StudyError, match="optimises one measure, but 2 are asked"):
            check_sampler("cmaes", 2)
