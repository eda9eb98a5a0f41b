"""Pairs of a model and a plan from a file of this folder: steps that a calibration or the experiment trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from towtank.executor.settings import RunSettings
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.models.schema import model_from_mapping
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_from_mapping
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack

STACK = "towtank-executor"


@dataclass(frozen=True, slots=True)
class Pair:
    """A model under a plan of our executor."""

    name: str
    """Such as `probe-gpt data=2 tensor_x=2`."""
    model: ModelSpec
    plan: Plan
    stack: Stack

    def settings(self) -> RunSettings:
        """Settings of a run of it."""
        return RunSettings(self.model, self.plan, self.stack, "fp32")


def load_pairs(name: str) -> list[Pair]:
    """The pairs of `NAME.yaml` in this folder."""
    text = Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    models = {
        each: model_from_mapping({**document["defaults"], "name": each, **entry}, each)
        for each, entry in document["models"].items()
    }
    stack = load_stack(STACK)
    return [_pair(models[step["model"]], step["plan"], stack) for step in document["steps"]]


def _pair(model: ModelSpec, fields: Mapping[str, Any], stack: Stack) -> Pair:
    plan = plan_from_mapping({"precision": "fp32", **fields})
    words = " ".join(f"{key}={value}" for key, value in fields.items())
    return Pair(f"{model.name} {words}", model, plan, stack)
