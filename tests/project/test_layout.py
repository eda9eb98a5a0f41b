"""The floors lie at the top and install below towtank; their data go with them."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from towtank import __version__

NOT_DATA = {".py", ".md"}


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def test_every_floor_has_its_link(root: Path, floors: list[str]) -> None:
    links = {path.name: path for path in (root / "src" / "towtank").iterdir() if path.is_symlink()}
    assert sorted(links) == floors
    for name, link in links.items():
        assert link.readlink() == Path("../..") / name


def test_every_floor_is_in_the_layers_contract_and_banned_as_bare_name(
    pyproject: dict[str, Any], floors: list[str]
) -> None:
    tool = pyproject["tool"]
    layers = tool["importlinter"]["contracts"][0]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    assert named == {"towtank.cli", "towtank.pages", *(f"towtank.{floor}" for floor in floors)}
    assert sorted(tool["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) == floors


def _homes(root: Path, floors: list[str]) -> list[Path]:
    """Folders whose files are installed."""
    return [*(root / floor for floor in floors), *(root / "src/towtank" / name for name in ("cli", "pages"))]


def _data_files(root: Path, floors: list[str]) -> set[Path]:
    files = {path for home in _homes(root, floors) for path in home.rglob("*") if path.is_file()}
    return {path for path in files if path.suffix not in NOT_DATA and path.parent.name != "__pycache__"}


def test_package_data_covers_every_data_file(
    root: Path, floors: list[str], pyproject: dict[str, Any]
) -> None:
    patterns = pyproject["tool"]["setuptools"]["package-data"]
    assert set(patterns) == {"*"}, "this test reads the patterns for all packages only"
    data = _data_files(root, floors)
    packages = {path.parent for home in _homes(root, floors) for path in home.rglob("__init__.py")}
    matched = {path for package in packages for pattern in patterns["*"] for path in package.glob(pattern)}
    assert len(data) > 100
    assert root / "src/towtank/pages/page.html" in data
    assert sorted(data - matched) == []
    assert (root / "src/towtank/py.typed") in set((root / "src/towtank").glob(patterns["*"][0]))


def test_every_folder_with_code_is_a_package(root: Path, floors: list[str]) -> None:
    # a folder without __init__.py imports from a checkout, but is not installed
    folders = {path.parent for home in _homes(root, floors) for path in home.rglob("*.py")}
    assert sorted(folder for folder in folders if not (folder / "__init__.py").exists()) == []


def test_version_is_one(pyproject: dict[str, Any], root: Path) -> None:
    assert pyproject["project"]["version"] == __version__
    assert f"## [{__version__}]" in (root / "CHANGELOG.md").read_text()
