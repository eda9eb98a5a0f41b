"""What the executor can run of a model and a plan, beyond the rules of the plan. Facts here are about code of
ours."""

import math

from towtank.executor.settings import RunSettings
from towtank.simulator.models.records import Attention, ModelSpec
from towtank.simulator.plan import Plan


def faults(settings: RunSettings) -> list[str]:
    """Everything that the executor cannot run, as sentences; empty if it can."""
    return [*_model_faults(settings.model), *_plan_faults(settings), *_training_faults(settings)]


def _model_faults(model: ModelSpec) -> list[str]:
    found = []
    if not isinstance(model.attention, Attention):
        found.append("latent attention")
    elif model.attention.sinks:
        found.append("attention sinks")
    if model.positions == "alibi":
        found.append("ALiBi positions")
    if model.mtp_layers:
        found.append("multi-token prediction")
    if model.embedding_projection is not None:
        found.append("an embedding of another width")
    if model.mlp.activation_parameters:
        found.append("learned activations")
    if model.norms_per_layer not in (1, 2, 4) or (model.norms_per_layer == 1 and not model.parallel_block):
        found.append(f"{model.norms_per_layer} norms a layer")
    if model.parallel_block and (model.norms_per_layer > 2 or model.experts is not None):
        found.append("parallel blocks with experts or more than two norms")
    if model.experts is not None and (model.experts.bias or model.experts.router_bias):
        found.append("biases of experts or router")
    return [
        f"the executor cannot run {model.name}: it has {what}, which only the simulator knows"
        for what in found
    ]


def _plan_faults(settings: RunSettings) -> list[str]:
    plan, model = settings.plan, settings.model
    found = []
    parts = plan.tensor_x * plan.tensor_y
    if parts > 1 and model.vocab <= -(-model.vocab // parts) * (parts - 1):
        found.append(
            f"vocabulary = {model.vocab} on tensor_x {plan.tensor_x} x tensor_y {plan.tensor_y} = {parts} devices "
            f"leaves one without a token; choose smaller degrees"
        )
    if isinstance(model.attention, Attention) and model.positions == "rope" and model.attention.head_dim % 2:
        found.append(f"rotary embedding needs an even head size, but it is {model.attention.head_dim}")
    return [*found, *_split_faults(plan), *_precision_faults(settings)]


def _split_faults(plan: Plan) -> list[str]:
    if plan.cached_layers and plan.recompute_every > 1:
        return [
            f"cached_layers = {plan.cached_layers} with recompute_every = {plan.recompute_every}: the executor keeps "
            f"gathered weights of recomputed layers only; set recompute_every = 1"
        ]
    return []


def _precision_faults(settings: RunSettings) -> list[str]:
    plan, found = settings.plan, []
    if plan.precision == "tf32" and settings.dtype == "fp32" and settings.device == "cpu":
        found.append("precision = tf32, but CPUs multiply fp32 numbers as they are; set precision = fp32")
    if plan.gradient_precision not in (None, "fp32"):
        found.append(
            f"gradient_precision = {plan.gradient_precision}, but the executor keeps and sums gradients in fp32; "
            f"leave it out"
        )
    if plan.master_precision != "fp32":
        found.append(
            f"master_precision = {plan.master_precision}, but the executor keeps fp32 master weights; leave it out"
        )
    return found


def _training_faults(settings: RunSettings) -> list[str]:
    found = []
    if not 0.0 <= settings.dropout < 1.0:
        found.append(f"dropout = {settings.dropout}, but it must be 0 or more and less than 1")
    if settings.steps < 1:
        found.append(f"steps = {settings.steps}, but it must be 1 or more")
    for name in ("learning_rate", "weight_decay"):
        value = getattr(settings, name)
        if not 0.0 <= value < math.inf:
            found.append(f"{name} = {value}, but it must be a number of 0 or more")
    clip = settings.gradient_clip
    if clip is not None and not 0.0 < clip < math.inf:
        found.append(f"gradient_clip = {clip}, but it must be a number above 0; leave it out for none")
    if settings.epsilon <= 0 or not all(0.0 <= beta < 1.0 for beta in settings.betas):
        found.append(
            f"epsilon = {settings.epsilon} and betas = {settings.betas}, but epsilon must be above 0, and betas 0 or "
            f"more and less than 1"
        )
    return found
