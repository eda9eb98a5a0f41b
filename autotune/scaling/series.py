"""The jobs of a scaling study: what stays and what grows with the devices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from towtank.autotune.errors import TuningError
from towtank.simulator.models.records import Attention, LatentAttention, ModelSpec

Mode = Literal["strong", "weak-batch", "weak-model"]
MODES: tuple[Mode, ...] = ("strong", "weak-batch", "weak-model")
Growth = Literal["layers", "hidden"]
GROWTHS: tuple[Growth, ...] = ("layers", "hidden")

_HEADS_STEP = 8
"""Grown models keep a number of heads that divides by this, if the first one's does."""


@dataclass(frozen=True, slots=True)
class ScalePoint:
    """One job of a study."""

    devices: int
    model: ModelSpec
    global_batch: int
    """Sequences of one step."""


def scale_points(
    mode: Mode,
    models: Sequence[ModelSpec],
    devices: Sequence[int],
    global_batch: int,
    growth: Growth = "layers",
) -> tuple[ScalePoint, ...]:
    """Jobs by number of devices, the smallest first.

    strong: model and batch stay. weak-batch: the batch grows with the devices, from `global_batch` on the fewest.
    weak-model: the batch stays and the model grows: one model for each number of devices, or one that grows by
    `grown`.

    Raises:
        TuningError: models and devices do not go together, or a batch is not whole.
    """
    faults = _faults(mode, models, devices, global_batch)
    if faults:
        raise TuningError(faults, "scale")
    first = devices[0]
    if mode == "strong":
        return tuple(ScalePoint(count, models[0], global_batch) for count in devices)
    if mode == "weak-batch":
        return tuple(ScalePoint(count, models[0], global_batch * count // first) for count in devices)
    if len(models) > 1:
        return tuple(
            ScalePoint(count, model, global_batch) for count, model in zip(devices, models, strict=True)
        )
    return tuple(
        ScalePoint(count, grown(models[0], count / first, growth), global_batch) for count in devices
    )


def _faults(mode: Mode, models: Sequence[ModelSpec], devices: Sequence[int], global_batch: int) -> list[str]:
    faults = []
    if list(devices) != sorted(set(devices)) or not devices or devices[0] < 1:
        faults.append(f"devices {', '.join(map(str, devices))} must be at least 1 and grow")
    if global_batch < 1:
        faults.append(f"global_batch = {global_batch}, but it must be 1 or more")
    if mode == "weak-model":
        if len(models) not in (1, len(devices)):
            faults.append(
                f"{len(models)} models for {len(devices)} numbers of devices; give one for each, or one that grows"
            )
    elif len(models) != 1:
        faults.append(f"{len(models)} models, but only --mode weak-model changes the model; give one")
    if faults or mode != "weak-batch":
        return faults
    first = devices[0]
    return [
        f"global_batch = {global_batch} on {first} devices is {global_batch * count / first:g} on {count}; choose a "
        f"multiple of {first // math.gcd(first, count)}"
        for count in devices
        if global_batch * count % first
    ]


def grown(model: ModelSpec, ratio: float, growth: Growth) -> ModelSpec:
    """A model with about `ratio` times the weights in its layers.

    layers: so many times the layers. hidden: width times the square root of the ratio, since weights go with its
    square: more heads of the same size, whose number keeps dividing by 8 if it does, and all feed-forward widths in
    proportion to the heads.
    """
    if ratio == 1:
        return model
    if growth == "layers":
        layers = max(1, round(model.num_layers * ratio))
        return replace(model, name=f"{model.name}, {layers} layers", num_layers=layers)
    heads, attention = _more_heads(model.attention, math.sqrt(ratio))
    wider = heads / model.attention.heads

    def width(size: int) -> int:
        return round(size * wider)

    experts = model.experts
    if experts is not None:
        experts = replace(experts, hidden=width(experts.hidden), shared_hidden=width(experts.shared_hidden))
    hidden = width(model.hidden)
    return replace(
        model,
        name=f"{model.name}, hidden {hidden}",
        hidden=hidden,
        attention=attention,
        mlp=replace(model.mlp, hidden=width(model.mlp.hidden)),
        experts=experts,
    )


def _more_heads(
    attention: Attention | LatentAttention, factor: float
) -> tuple[int, Attention | LatentAttention]:
    """About `factor` times the heads; groups of query heads that share keys keep their size."""
    if isinstance(attention, LatentAttention):
        heads = _nearest(attention.heads, factor)
        return heads, replace(attention, heads=heads)
    kv_heads = _nearest(attention.kv_heads, factor)
    heads = kv_heads * (attention.heads // attention.kv_heads)
    return heads, replace(attention, heads=heads, kv_heads=kv_heads)


def _nearest(number: int, factor: float) -> int:
    step = math.gcd(number, _HEADS_STEP)
    return max(step, round(number * factor / step) * step)
