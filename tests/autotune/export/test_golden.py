"""Whole exports against files that were checked line by line; the arithmetic stands in each plan file."""

from pathlib import Path

import pytest

from towtank.autotune.export.records import Job
from towtank.autotune.export.targets import export
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan_file import load_plan_file
from towtank.simulator.stacks.load import load_stack

GOLDEN = Path(__file__).parents[2] / "golden" / "export"


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir()))
def test_golden(case):
    path = GOLDEN / case / "plan.yaml"
    target = next(line for line in path.read_text().splitlines() if line.startswith("# to: "))[6:]
    file = load_plan_file(path)
    assert file.model and file.machine and file.stack
    job = Job(
        load_model(file.model), load_machine(file.machine), file.plan, load_stack(file.stack), file.machine
    )
    files = {written.name: written.text for written in export(job, target, stem="expected").files}
    expected = {path.name: path.read_text() for path in (GOLDEN / case).glob("expected.*")}
    assert files == expected
