"""The parsers of the software that plans are exported to, as far as they run without a device."""

import argparse
import ast
import contextlib
import dataclasses
import io
import os
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typing_extensions

MEGATRON = Path(os.environ.get("TOWTANK_MEGATRON", ""))
"""Folder into which megatron-core and megatron-bridge were unpacked; both need Python 3.12 by their word only."""


def script_arguments(script: Path) -> tuple[list[str], list[str]]:
    """Options of the launcher and arguments of the program, as bash expands them."""
    words = "{ printf '%s\\0' \"$@\"; }"
    stand_ins = f"torchrun() {words}\nsrun() {words}\nscontrol() {{ echo node; }}\n"
    done = subprocess.run(
        ["bash", "-c", stand_ins + script.read_text()],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "SLURM_JOB_NODELIST": "node"},
    )
    words = done.stdout.split("\0")[:-1]
    program = max(index for index, word in enumerate(words) if word.endswith(".py"))
    return words[:program], words[program + 1 :]


def exported_variables(script: Path) -> dict[str, str]:
    """Variables that a launch script exports before it starts anything."""
    lines = [
        line.removeprefix("export ") for line in script.read_text().splitlines() if line.startswith("export ")
    ]
    return dict(line.split("=", 1) for line in lines if " " not in line)


@contextlib.contextmanager
def megatron() -> Iterator[Any]:
    """Megatron-LM's module of arguments, in front of a device and a Transformer Engine that are not there."""
    sys.path.insert(0, str(MEGATRON))
    typing.override = typing_extensions.override  # type: ignore[attr-defined]  # Python 3.11 lacks it
    import torch

    torch.cuda.get_device_capability = lambda *_: (9, 0)  # type: ignore[assignment]
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.transformer import transformer_config
    from megatron.training import arguments
    from packaging.version import Version

    rope_utils.fused_apply_rotary_pos_emb = rope_utils.fused_apply_rotary_pos_emb_thd = True
    arguments.get_device_arch_version = lambda: 9
    for module in (arguments, transformer_config):
        module.is_te_min_version = lambda *_, **__: True
    transformer_config.get_te_version = lambda: Version("2.20")
    try:
        yield arguments
    finally:
        sys.path.remove(str(MEGATRON))


def megatron_options() -> list[str]:
    """Options of Megatron-LM."""
    with megatron() as arguments, contextlib.redirect_stdout(io.StringIO()):
        parser = argparse.ArgumentParser(allow_abbrev=False)
        arguments.add_megatron_arguments(parser)
    return sorted(
        name for action in parser._actions for name in action.option_strings if name.startswith("--")
    )


def megatron_config(script: Path, monkeypatch: Any) -> tuple[argparse.Namespace, Any]:
    """What Megatron-LM makes of a launch script: checked arguments and configuration of the model."""
    launcher, words = script_arguments(script)
    world = int(launcher[launcher.index("--nnodes") + 1]) * int(
        launcher[launcher.index("--nproc-per-node") + 1]
    )
    for name, value in {**exported_variables(script), "RANK": "0", "WORLD_SIZE": str(world)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["pretrain_gpt.py", *words])
    with megatron() as arguments, contextlib.redirect_stdout(io.StringIO()):
        namespace = arguments.validate_args(arguments.parse_args(), {})
        return namespace, arguments.core_transformer_config_from_args(namespace)


def torchtitan_options() -> list[str]:
    """Fields of torchtitan's sections that a plan concerns."""
    from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig

    sections = {"compile": CompileConfig, "parallelism": ParallelismConfig, "training": TrainingConfig}
    return sorted(
        f"{name}.{field.name}" for name, section in sections.items() for field in dataclasses.fields(section)
    )


def deepspeed_options() -> list[str]:
    """Keys of DeepSpeed JSON that a plan concerns: those of the models that parse its sections, and the constants."""
    from deepspeed.module_inject.auto_ep_config import AutoEPConfig
    from deepspeed.runtime import config, constants
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.tensor_parallel.config import TPTrainingConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    def fields(prefix: str, model: Any) -> set[str]:
        return {f"{prefix}.{field.alias or name}" for name, field in model.model_fields.items()}

    source = Path(config.__file__).read_text()
    top = {value for name, value in vars(constants).items() if name.isupper() and isinstance(value, str)}
    top |= {"sequence_parallel_size"} if '"sequence_parallel_size" in config' in source else set()
    keys = {
        "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
        "communication_data_type", "seq_parallel_communication_data_type", "sequence_parallel_size", "data_types",
        "tensor_parallel", "expert_parallel", "zero_optimization", "bf16", "fp16",
    }  # fmt: skip
    named = top | {"tensor_parallel", "zero_optimization", "bf16", "fp16", config.EXPERT_PARALLEL}
    experts = {f"expert_parallel.{field.name}" for field in dataclasses.fields(AutoEPConfig)}
    return sorted(
        (keys & named)
        | {f"{constants.DATA_TYPES}.{constants.GRAD_ACCUM_DTYPE}"}
        | experts
        | fields("zero_optimization", DeepSpeedZeroConfig)
        | fields("bf16", DeepSpeedBF16Config)
        | fields("tensor_parallel", TPTrainingConfig)
    )


def bridge_options() -> list[str]:
    """Fields of Megatron Bridge's sections, read from its source: importing it needs Transformer Engine."""
    core, bridge = MEGATRON / "megatron" / "core", MEGATRON / "megatron" / "bridge"
    training = MEGATRON / "megatron" / "training" / "config"
    sections = {
        "model": [
            core / "model_parallel_config.py",
            core / "transformer/transformer_config.py",
            bridge / "models/gpt_provider.py",
        ],
        "ddp": [core / "distributed/distributed_data_parallel_config.py"],
        "optimizer": [core / "optimizer/optimizer_config.py"],
        "dist": [training / "common_config.py"],
        "train": [training / "training_config.py"],
        "tokenizer": [training / "training_config.py", bridge / "training/tokenizers/config.py"],
        "checkpoint": [training / "training_config.py"],
        "dataset": [core / "datasets/gpt_dataset.py", bridge / "training/config.py"],
        "mixed_precision": [bridge / "training/mixed_precision.py"],
    }
    return sorted(
        {f"{name}.{field}" for name, paths in sections.items() for path in paths for field in _fields(path)}
    )


def _fields(path: Path) -> Iterator[str]:
    """Annotated names in the classes of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield part.target.id


OPTIONS = {
    "megatron": megatron_options,
    "torchtitan": torchtitan_options,
    "deepspeed": deepspeed_options,
    "megatron-bridge": bridge_options,
}
