"""What the documents show works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "DESIGN.md", "CHANGELOG.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_examples_run(name: str, root: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (root / name).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks or name != "README.md"
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


def _targets(root: Path) -> set[str]:
    makefile = (root / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    return set(phony[1].split())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_that_are_mentioned_exist(name: str, root: Path) -> None:
    text = (root / name).read_text()
    mentioned = set(re.findall(r"^    make ([a-z]+)$|`make ([a-z]+)`", text, re.MULTILINE))
    assert {first or second for first, second in mentioned} <= _targets(root)


def test_every_make_target_is_explained(root: Path) -> None:
    explained = set(re.findall(r"^\| `make ([a-z]+)`", (root / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert explained == _targets(root) - {"help"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_that_are_mentioned_exist(name: str, root: Path) -> None:
    text = (root / name).read_text()
    paths = re.findall(r"`((?:[a-z_]+/)+[a-z_.]*)`", text)
    assert [path for path in paths if not (root / path).exists()] == []
