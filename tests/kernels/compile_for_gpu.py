"""Compile every Triton kernel for a GPU that is not there: python compile_for_gpu.py cuda 90, or hip gfx942.

Launchers run on CPU tensors; each launch is compiled, down to the code of the device, and not run.
"""

import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from towtank.kernels.launch import empty
from towtank.kernels.registry import kernels


class _NoDevice:
    """As much of a driver as compilation asks for."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def main(backend: str, architecture: str) -> None:
    name: int | str = int(architecture) if architecture.isdigit() else architecture
    driver.set_active(_NoDevice(GPUTarget(backend, name, 32 if backend == "cuda" else 64)))
    compiled: list[str] = []

    def instead(function, grid):
        def compile_only(*arguments, **constants):
            made = function.warmup(*arguments, grid=(1,), **constants)
            compiled.append(
                f"{function.__name__} {max(made.asm, key=lambda kind: kind in ('ptx', 'amdgcn'))}"
            )

        return compile_only

    JITFunction.__getitem__ = instead
    for kernel in kernels().values():
        triton_code = kernel.backend("triton")
        sizes = {**kernel.options, **kernel.cases[0]}
        dtype = "bfloat16" if "bfloat16" in triton_code.dtypes else triton_code.dtypes[0]
        inputs = kernel.inputs(sizes, getattr(torch, dtype), torch.Generator().manual_seed(0))
        tile = triton_code.tiles(sizes, dtype)[0]
        triton_code.load()(inputs, sizes, tile, empty("cpu"))
        print(kernel.name, len(compiled), flush=True)
    print(f"{len(compiled)} launches of {len(set(compiled))} kernels compiled for {backend} {architecture}")


if __name__ == "__main__":
    main(*sys.argv[1:])
