"""A device's training step: what accumulation, recomputation and precision may not change; going on bit for bit."""

import math
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.executor.tiny import alone, run_steps, tiny_batches, tiny_model

from towtank.executor.checkpoint.folder import latest
from towtank.executor.distributed.buckets import Bucket, Summing
from towtank.executor.distributed.mesh import Group
from towtank.executor.errors import CheckpointError
from towtank.executor.step.gradients import GradientSums
from towtank.executor.step.pipeline import Pass
from towtank.executor.step.precision import LossScale
from towtank.executor.step.states import States
from towtank.executor.step.trainer import StepResult, Trainer, _Passes
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.schedules import Phase

WHOLE = Plan(global_batch=4, micro_batch=4)
NOTHING = Overlap(**dict.fromkeys(Overlap.__dataclass_fields__, False))


def master(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Master weights by name."""
    found = [one for states in trainer.states for one in states.tensors()]
    return {name: tensor for name, _, tensor in found if name.startswith("master")}


@pytest.mark.parametrize(
    "plan",
    [
        Plan(global_batch=4, micro_batch=1),
        Plan(global_batch=4, micro_batch=2, overlap=NOTHING),
        Plan(global_batch=4, micro_batch=2, recompute="full"),
        Plan(global_batch=4, micro_batch=2, recompute="full", recompute_every=3),
        Plan(global_batch=4, micro_batch=2, recompute="selective"),
    ],
    ids=["accumulate", "no overlap", "full", "every third", "selective"],
)
def test_same_training(plan: Plan) -> None:
    reference, changed = alone(WHOLE), alone(plan)
    expected, found = run_steps(reference, 3), run_steps(changed, 3)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    weights = master(reference)
    for name, tensor in master(changed).items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-9, atol=1e-12)


def test_against_the_optimizer_of_torch() -> None:
    """Two steps on gradients of one's own: clipping, decay of matrices only, corrections of the moments."""
    trainer = alone(WHOLE, gradient_clip=0.5, weight_decay=0.3)
    parameters = {name: torch.nn.Parameter(one.clone()) for name, one in master(trainer).items()}
    groups = [
        {"params": [one for one in parameters.values() if one.dim() > 1], "weight_decay": 0.3},
        {"params": [one for one in parameters.values() if one.dim() == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    generator = torch.Generator().manual_seed(5)
    for _ in range(2):
        for states in trainer.states:
            for part in states.bucket.parts:
                assert states.gradient is not None
                drawn = torch.randn(part.box.size, generator=generator, dtype=torch.float64)
                part.of(states.gradient).copy_(drawn)
                parameters[f"master.{part.box.name}"].grad = drawn
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 0.5)
        reference.step()
        none, all_of_them = torch.zeros((), dtype=torch.float64), torch.tensor(64.0, dtype=torch.float64)
        update = trainer.optimizer.step(none, all_of_them, 64)
        assert update.gradient_norm == pytest.approx(float(norm), rel=1e-12)
    for name, tensor in master(trainer).items():
        torch.testing.assert_close(tensor, parameters[name].detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float64", "fp32", "bf16", "fp16"])
def test_goes_on_bit_for_bit(dtype: str, tmp_path: Path) -> None:
    first = alone(WHOLE, dtype)
    before = run_steps(first, 2)
    first.save(tmp_path, "data", 8)
    expected = run_steps(first, 4)
    second = alone(WHOLE, dtype, seed=99)
    path = latest(tmp_path)
    assert path is not None
    progress = second.load(path)
    assert (progress.step, progress.sequences) == (2, 8)
    assert run_steps(second, 4) == expected
    assert len(before) == 2
    weights = master(first)
    assert all(torch.equal(one, weights[name]) for name, one in master(second).items())


def test_checkpoint_of_another_model(tmp_path: Path) -> None:
    path = alone(WHOLE).save(tmp_path, "data", 0)
    other = alone(WHOLE, model=tiny_model(vocab=48))
    with pytest.raises(CheckpointError, match=r"has shape \(61, 32\) in the checkpoint and \(48, 32\)"):
        other.load(path)


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2), ("fp16", 3e-3)])
def test_losses_in_other_precisions(dtype: str, tolerance: float) -> None:
    expected = [loss for loss, _ in run_steps(alone(WHOLE), 4)]
    found = [loss for loss, _ in run_steps(alone(WHOLE, dtype), 4)]
    assert found == pytest.approx(expected, rel=tolerance)


def test_master_is_wider_than_the_weights() -> None:
    """Updates that bf16 cannot hold add up in the master."""
    trainer = alone(WHOLE, "bf16", learning_rate=1e-6, weight_decay=0.0)
    before = {name: one.clone() for name, one in master(trainer).items()}
    run_steps(trainer, 2)
    after = master(trainer)
    name = "master.model.final-norm.weight"
    moved = (after[name] - before[name]).abs()
    assert after[name].dtype == torch.float32
    assert 0 < float(moved.max()) < 1e-5
    (norm,) = [one for one in trainer.weights if one.name == "model.final-norm"]
    assert norm.value.dtype == torch.bfloat16
    assert torch.equal(norm.value, torch.ones_like(norm.value))


def test_an_overflow_leaves_the_weights_alone() -> None:
    trainer = alone(WHOLE, "fp16")
    trainer.optimizer.scale.factor = 2.0**40
    before = {name: one.clone() for name, one in master(trainer).items()}
    result = trainer.step(tiny_batches(trainer, 0))
    assert not result.updated and not math.isfinite(result.gradient_norm) and result.finite
    assert all(torch.equal(one, before[name]) for name, one in master(trainer).items())
    assert trainer.optimizer.scale.factor == 2.0**39
    assert trainer.optimizer.updates == 0


def test_loss_scale_by_hand() -> None:
    scale = LossScale(1024.0, changes=True)
    assert not scale.follow(math.inf) and scale.factor == 512.0
    assert not scale.follow(math.nan) and scale.factor == 256.0
    assert all(scale.follow(1.0) for _ in range(1999)) and scale.factor == 256.0
    assert scale.follow(1.0) and scale.factor == 512.0
    constant = LossScale.of("bf16")
    assert constant.follow(math.inf) and constant.factor == 1.0


def test_scaled_gradients_have_the_norm_of_the_loss() -> None:
    plain, scaled = alone(WHOLE), alone(WHOLE)
    scaled.optimizer.scale.factor = 4096.0
    expected, found = run_steps(plain, 2), run_steps(scaled, 2)
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in expected], rel=1e-12)
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-12)


def test_tokens_that_do_not_count() -> None:
    """The loss is the mean over tokens that count, however they fall to micro-batches."""
    trainer = alone(Plan(global_batch=4, micro_batch=1))
    batches = tiny_batches(trainer, 0)
    result = trainer.step(batches)
    assert result.tokens == sum(int((one.targets >= 0).sum()) for one in batches)
    nothing = [replace(one, targets=torch.full_like(one.targets, -100)) for one in batches]
    empty = trainer.step(nothing)
    assert (empty.loss, empty.gradient_norm, empty.tokens) == (0.0, 0.0, 0)


def test_a_loss_that_is_no_number_is_told() -> None:
    trainer = alone(WHOLE)
    next(iter(trainer.states)).master.fill_(math.nan)
    assert not trainer.step(tiny_batches(trainer, 0)).finite


def test_what_a_forward_pass_has_sent_is_not_held_until_its_backward_pass() -> None:
    """Only its graph is; the next stage has the tensor."""
    trainer = alone(WHOLE)
    made: list[weakref.ref[torch.Tensor]] = []

    def chunk(hidden: torch.Tensor, batch: object) -> torch.Tensor:
        after = hidden * 3
        made.append(weakref.ref(after))
        return after

    passes = _Passes((chunk,), trainer.sums, 0)  # type: ignore[arg-type]
    passes.begin(tiny_batches(trainer, 0), 1.0)
    sent = passes.forward(Pass(Phase.FORWARD, 0, 0), torch.ones(4), last=False)
    assert sent.tolist() == [3.0] * 4
    assert made[0]() is None
    gradient = passes.backward(Pass(Phase.BACKWARD, 0, 0), torch.full((4,), 2.0))
    assert gradient is not None and gradient.tolist() == [6.0] * 4


def test_zero_2_begins_without_gradients() -> None:
    """Whole gradients would make the first step need more memory than all others."""
    trainer = alone(WHOLE)
    weights = [weight for weight in trainer.weights if weight.layer == 0]
    half = Summing((), Group("state_shard", (0, 1), 0), ())
    states = States(Bucket("layer.0", weights, half), torch.float64)
    assert all(weight.gradient.shape == weight.value.shape for weight in weights)
    GradientSums((states,), trainer.sums._scatters, trainer.mesh.group("tensor_x"), overlapped=False)
    assert all(weight.gradient.shape == weight.value.shape for weight in weights)
    GradientSums(
        (states,),
        trainer.sums._scatters,
        trainer.mesh.group("tensor_x"),
        overlapped=False,
        frees_gradients=True,
    )
    assert all(weight.gradient.numel() == 0 for weight in weights)
    weights[0].accumulate(torch.ones_like(weights[0].value), "wgrad")
    assert weights[0].gradient.sum() == weights[0].value.numel()


@pytest.mark.parametrize(
    ("loss", "norm", "updated", "finite"),
    [
        (1.0, 2.0, True, True),
        (math.nan, 2.0, True, False),
        (1.0, math.inf, True, False),
        (1.0, math.inf, False, True),  # fp16 left the weights alone
    ],
)
def test_steps_that_spoil_the_weights_are_told(loss: float, norm: float, updated: bool, finite: bool) -> None:
    assert StepResult(0, loss, norm, 1, updated).finite == finite
