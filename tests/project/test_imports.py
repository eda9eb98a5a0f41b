"""What imports what: only downward, and nothing heavy before it is needed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "torch", "triton", "transformers", "pandas", "scipy", "optuna", "sqlalchemy", "simpy", "numba", "plotly",
    "starlette", "uvicorn", "rich",
}  # fmt: skip
"""Libraries that a prediction must not wait for; most take longer to import than it takes."""


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)


def _imported(statement: str, folder: Path) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = _run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_import_contract_holds(root: Path) -> None:
    done = _run([str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_towtank_itself_imports_nothing_of_others(tmp_path: Path) -> None:
    before = _imported("pass", tmp_path)
    new = _imported("import towtank", tmp_path) - before - sys.stdlib_module_names
    assert new == {"towtank"}


@pytest.mark.parametrize(
    "statement",
    [
        "import towtank.simulator.predict",
        "from towtank.cli import main; main(['devices', 'show', 'h100', '--json'])",
    ],
)
def test_a_prediction_imports_nothing_heavy(statement: str, tmp_path: Path) -> None:
    imported = _imported(statement, tmp_path)
    assert "towtank" in imported
    assert imported & HEAVY == set()


def test_help_imports_nothing_of_a_prediction(tmp_path: Path) -> None:
    imported = _imported("from towtank.cli import main; main(['tune', '--help'])", tmp_path)
    assert {"towtank", "typer"} <= imported
    assert imported & {*HEAVY, "numpy", "yaml"} == set()


def test_every_public_name_resolves(tmp_path: Path) -> None:
    code = "import towtank; print(*[type(getattr(towtank, name)).__name__ for name in towtank.__all__])"
    done = _run([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr


def test_no_floor_is_importable_by_its_bare_name(floors: list[str], tmp_path: Path) -> None:
    # a module loaded under two names has two of every global
    code = f"from importlib.util import find_spec; print([n for n in {floors} if find_spec(n)])"
    assert _run([sys.executable, "-c", code], tmp_path).stdout.strip() == "[]"
    assert all(importlib.util.find_spec(f"towtank.{floor}") for floor in floors)
