"""What the documents show works."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.commands import command_lines, fault

DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "DESIGN.md", "CHANGELOG.md", "docs/simulator.md", "docs/search.md",
    "docs/residuals.md", "docs/totals.md",
]  # fmt: skip


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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_that_are_shown_parse(name: str, root: Path) -> None:
    text = (root / name).read_text()
    inline = re.findall(r"`(towtank [a-z][^`]*)`", text)
    shown = [*command_lines(text), *(" ".join(line.split()) for line in inline)]
    assert shown or name not in ("README.md", "CONTRIBUTING.md")
    assert [found for line in shown if (found := fault(line))] == []


def _targets(root: Path) -> set[str]:
    makefile = (root / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    return set(phony[1].split())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_modules_that_are_mentioned_can_be_run(name: str, root: Path) -> None:
    text = (root / name).read_text()
    for module in re.findall(r"(?:^\| `|-m )(towtank(?:\.[a-z_]+)+)", text, re.MULTILINE):
        found = importlib.util.find_spec(module)
        assert found is not None and found.origin is not None, module
        source = Path(found.origin)
        assert source.name != "__init__.py" or source.with_name("__main__.py").exists(), module
        assert source.name == "__init__.py" or '__name__ == "__main__"' in source.read_text(), module


def test_counts_in_the_readme(root: Path) -> None:
    from towtank.executor.equality.cases import CASES
    from towtank.kernels.registry import kernels

    text = " ".join((root / "README.md").read_text().split())
    assert f"of {len(kernels())} kernels of a training step" in text
    most = max(case.plan.num_devices for case in CASES)
    assert f"that {len(CASES)} plans on up to {most} processes" in text


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
