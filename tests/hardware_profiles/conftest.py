from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[str, str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A private profile folder, empty."""
    for kind in ("devices", "machines", "networks"):
        (tmp_path / kind).mkdir()
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    """Write a profile such as write("devices/x100", "name: x100\\n...")."""

    def write_file(name: str, text: str) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file
