"""Checkpoints over several processes: written under one plan, gone on with under others."""

import shutil
from pathlib import Path

import pytest
import torch
from tests.executor.tiny import tiny_model, tiny_settings

from towtank.executor.checkpoint.folder import load, read_progress
from towtank.executor.checkpoint.parts import Part
from towtank.executor.distributed.boxes import Box
from towtank.executor.launching.local import run_processes
from towtank.executor.launching.request import RunOutcome, RunRequest
from towtank.simulator.plan import Plan

pytestmark = pytest.mark.slow

MODEL = tiny_model(tied_embeddings=True)
WRITTEN = Plan(data=2, zero_stage=1, global_batch=8)
OTHERS = {
    "one process": Plan(global_batch=8, micro_batch=4),
    "tensor grid": Plan(tensor_x=2, global_batch=8, micro_batch=8),
    "ZeRO 3 in a pipeline": Plan(pipeline=2, data=2, zero_stage=3, global_batch=8),
}
NAMES = {
    "model.embedding.weight": (61, 32),
    "layer.0.attention.key.weight": (16, 32),
    "layer.3.mlp.down.weight": (32, 48),
    "model.final-norm.weight": (32,),
}


def train(plan: Plan, folder: Path, steps: int, *, resume: bool = False) -> RunOutcome:
    settings = tiny_settings(plan, model=MODEL, steps=steps)
    request = RunRequest(
        settings, "tiny", "towtank-executor", {}, checkpoint=folder, resume=resume, threads=1, quiet=True
    )
    return run_processes(request)


def read(path: Path) -> dict[str, torch.Tensor]:
    """Some whole tensors of a checkpoint: masters and both moments."""
    parts = [
        Part(
            f"{kind}.{name}",
            Box(name, shape, (0,) * len(shape), shape),
            torch.zeros(shape, dtype=torch.float64),
        )
        for kind in ("master", "first", "second")
        for name, shape in NAMES.items()
    ]
    load(path, parts)
    return {part.name: part.tensor for part in parts}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after three steps."""
    folder = tmp_path_factory.mktemp("written")
    train(WRITTEN, folder, 3)
    return folder


@pytest.fixture(scope="module")
def expected(
    written: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and weights of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = train(WRITTEN, folder, 5)
    assert outcome.saved is not None
    return [step.loss for step in outcome.steps], read(outcome.saved)


def test_the_same_plan_goes_on_bit_for_bit(
    written: Path, expected: tuple[list[float], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    outcome = train(WRITTEN, tmp_path, 5, resume=True)
    assert outcome.first_step == 3
    assert [step.loss for step in outcome.steps] == expected[0][3:]
    assert outcome.saved is not None
    found = read(outcome.saved)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected[1].items())
    assert read_progress(outcome.saved).sequences == 40


@pytest.mark.parametrize("plan", OTHERS.values(), ids=OTHERS)
def test_another_plan_goes_on(
    plan: Plan, written: Path, expected: tuple[list[float], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    outcome = train(plan, tmp_path, 5, resume=True)
    assert [step.loss for step in outcome.steps] == pytest.approx(expected[0][3:], rel=1e-9)
    assert outcome.saved is not None
    for name, tensor in read(outcome.saved).items():
        torch.testing.assert_close(tensor, expected[1][name], rtol=1e-9, atol=1e-12)
