"""Samplers by name and seed."""

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towtank.autotune.study.records import StudyError
from towtank.hardware_profiles.nearest import did_you_mean

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True, slots=True)
class _Kind:
    """A class of optuna.samplers and what it needs."""

    class_name: str
    packages: tuple[str, ...] = ()
    most_measures: int | None = None
    only_finite: bool = False


_KINDS: Mapping[str, _Kind] = {
    "tpe": _Kind("TPESampler"),
    "random": _Kind("RandomSampler"),
    "nsgaii": _Kind("NSGAIISampler"),
    "nsgaiii": _Kind("NSGAIIISampler"),
    "qmc": _Kind("QMCSampler", ("scipy",)),
    "brute-force": _Kind("BruteForceSampler", only_finite=True),
    "cmaes": _Kind("CmaEsSampler", ("cmaes",), most_measures=1),
    "gp": _Kind("GPSampler", ("torch", "scipy")),
}
SAMPLERS = tuple(_KINDS)
"""Names of samplers."""


def check_sampler(name: str, measures: int = 1, *, finite: bool = True) -> None:
    """Check that a sampler exists, is installed and can do what is asked.

    Raises:
        StudyError: the name is unknown, a package is missing, or it cannot handle so many measures or this space.
    """
    kind = _KINDS.get(name)
    if kind is None:
        raise StudyError(
            f"sampler {name} is unknown{did_you_mean(name, SAMPLERS)} (known: {', '.join(SAMPLERS)})"
        )
    missing = [package for package in kind.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise StudyError(
            f"sampler {name} needs {' and '.join(missing)}, which is not installed; "
            f"`pip install {' '.join(missing)}`, or choose another sampler"
        )
    if kind.most_measures is not None and measures > kind.most_measures:
        raise StudyError(
            f"sampler {name} optimises one measure, but {measures} are asked; choose tpe or nsgaii"
        )
    if kind.only_finite and not finite:
        raise StudyError(f"sampler {name} tries every value, but a parameter is a real number; choose tpe")


def make_sampler(name: str, seed: int) -> "BaseSampler":
    """Make a sampler; the same name and seed propose the same configurations after the same results."""
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    options: dict[str, Any] = {"seed": seed}
    if name == "qmc":
        options |= {"scramble": True, "warn_independent_sampling": False, "warn_asynchronous_seeding": False}
    if name == "cmaes":
        options |= {"warn_independent_sampling": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # so are two of them called, for years
        sampler: BaseSampler = getattr(samplers, _KINDS[name].class_name)(**options)
    return sampler
