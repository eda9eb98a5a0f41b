"""Plans drawn at random among those that the rules allow."""

import random
from dataclasses import fields
from functools import lru_cache
from math import prod
from typing import Any

from towtank.executor.equality.cases import GLOBAL_BATCH, Case
from towtank.executor.equality.models import MODELS
from towtank.executor.supported import faults
from towtank.hardware_profiles.load import load_machine
from towtank.hardware_profiles.records import Machine
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan, Recompute
from towtank.simulator.plan_rules import faults_of

_RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
_DEGREES = ("tensor_x", "tensor_y", "tensor_z", "context", "data", "pipeline")


@lru_cache(maxsize=1)
def _machine() -> Machine:
    """Any machine with fp32: rules ask it for precisions and the number of devices only."""
    return load_machine("perlmutter-a100-40")


def _degrees(draw: random.Random, devices: int) -> dict[str, Any]:
    """Degrees that multiply to a power of two."""
    found = dict.fromkeys(_DEGREES, 1)
    while prod(found.values()) < devices:
        found[draw.choice(_DEGREES)] *= 2
    return found


def _plan(draw: random.Random, devices: int) -> Plan:
    degrees = _degrees(draw, devices)
    order = draw.sample(DEFAULT_RANK_ORDER, len(DEFAULT_RANK_ORDER))
    if draw.random() < 0.5:
        order = [*(name for name in order if name != "pipeline"), "pipeline"]
    recompute = draw.choice(_RECOMPUTE)
    switches = {
        one.name: draw.random() < 0.5 for one in fields(Overlap) if one.name not in ("expert", "tensor")
    }
    return Plan(
        **degrees,
        data_shard=draw.choice((None, None, 1, 2)),
        zero_stage=draw.randrange(4),
        sequence_parallel=draw.random() < 0.5,
        virtual_stages=draw.choice((1, 1, 2)),
        schedule=draw.choice((None, None, "gpipe")),
        context_kind=draw.choice(("ring", "all-to-all")),
        expert=draw.choice((1, 2, 4)),
        expert_tensor=draw.choice((1, 2)),
        micro_batch=draw.choice((1, 2, 4)),
        global_batch=GLOBAL_BATCH,
        recompute=recompute,
        recompute_every=draw.choice((1, 2)) if recompute == "full" else 1,
        precision="fp32",
        overlap=Overlap(**switches),
        rank_order=tuple(order),
    )


def random_case(seed: int, devices: int) -> Case:
    """A legal plan of so many devices for one of the models, a function of the seed."""
    draw = random.Random(seed)
    while True:
        model, plan = draw.choice(sorted(MODELS)), _plan(draw, devices)
        case = Case(f"random {seed}", model, plan, dropout=draw.choice((0.0, 0.1)))
        settings = case.settings
        if not faults_of(settings.model, _machine(), plan, settings.stack) and not faults(settings):
            return case
