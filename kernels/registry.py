"""All kernels by name. Nothing here imports torch."""

import importlib
from collections.abc import Mapping
from functools import cache

from towtank.kernels.records import Kernel

MODULES = (
    "matmul",
    "grouped_matmul",
    "attention",
    "norms",
    "activations",
    "rotary",
    "cross_entropy",
    "adamw",
    "fp8_cast",
    "fp8_matmul",
    "moe_permute",
)
"""Modules with kernels, in the order in which they are listed."""


@cache
def kernels() -> Mapping[str, Kernel]:
    """Every kernel by its name."""
    found: dict[str, Kernel] = {}
    for module in MODULES:
        for kernel in importlib.import_module(f"towtank.kernels.{module}").KERNELS:
            found[kernel.name] = kernel
    return found
