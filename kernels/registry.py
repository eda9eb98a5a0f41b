"""All kernels by name. Nothing here imports torch."""

from collections.abc import Mapping
from functools import cache

from towtank.kernels.records import Kernel


@cache
def kernels() -> Mapping[str, Kernel]:
    """Every kernel by its name."""
    from towtank.kernels import norms

    return {kernel.name: kernel for kernel in (*norms.KERNELS,)}
