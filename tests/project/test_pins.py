"""The pins that CI installs agree with the ranges that pyproject.toml states."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNPINNED = {"triton": "each torch brings the triton that it was built with"}


def _pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints-ci.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def _requirements(root: Path) -> list[Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    return [Requirement(text) for text in [*project["dependencies"], *extras]]


def test_every_requirement_is_pinned_inside_its_range(root: Path) -> None:
    pins = _pins(root)
    for requirement in _requirements(root):
        name = canonicalize_name(requirement.name)
        assert (name in pins) != (name in UNPINNED), f"{name} must be pinned in constraints-ci.txt"
        if name in pins:
            assert requirement.specifier.contains(pins[name]), f"{requirement} against {pins[name]}"


def test_every_requirement_has_a_lower_bound(root: Path) -> None:
    for requirement in _requirements(root):
        assert any(bound.operator == ">=" for bound in requirement.specifier), requirement


@pytest.mark.parametrize("name", ["numpy", "pydantic", "optuna", "pytest", "torch"])
def test_pins_are_exact_versions(root: Path, name: str) -> None:
    assert _pins(root)[name][0].isdigit()
