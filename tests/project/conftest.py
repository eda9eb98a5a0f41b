import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILDS = {"build", "dist", "__pycache__"}


def _is_ours(folder: Path) -> bool:
    if folder.name.startswith("."):
        return folder.name == ".ci"
    generated = folder.name in BUILDS or folder.name.endswith(".egg-info") or (folder / "pyvenv.cfg").exists()
    return not generated and not folder.is_symlink()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file of the project, once: the links of src/towtank are not followed."""
    found = []
    for here, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if _is_ours(Path(here, name))]
        found += [Path(here, name) for name in files if not Path(here, name).is_symlink()]
    return found


@pytest.fixture(scope="session")
def floors() -> list[str]:
    """Top-level folders that are packages."""
    return sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
