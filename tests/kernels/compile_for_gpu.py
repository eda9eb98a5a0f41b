"""Compile every Triton kernel for a GPU that is not there: python compile_for_gpu.py cuda 90, or hip gfx942.

Launchers run on CPU tensors; each launch is compiled, down to the code of the device, and not run. It must not need
more shared memory than a block of that GPU may have, nor spill many registers; what it spills is printed.
"""

import contextlib
import io
import re
import sys

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from towtank.kernels import shared_memory
from towtank.kernels.launch import empty
from towtank.kernels.registry import kernels

SHARED_BYTES = {"90": 227 << 10, "89": 99 << 10, "80": 163 << 10, "gfx90a": 64 << 10, "gfx942": 64 << 10}
"""Shared memory of one block (autotune/tiles/gpus.yaml)."""
MOST_SPILLED = 512
"""Bytes that a thread may keep in memory because registers do not hold them."""
ATTENTION = {"batch": 1, "sequence": 512, "heads": 2, "kv_heads": 1, "head_dim": 128}
REAL = {
    **dict.fromkeys(("matmul", "matmul_dgrad", "matmul_wgrad", "fp8_matmul"), dict.fromkeys("mnk", 512)),
    "grouped_matmul": {"experts": 2, "m": 512, "n": 256, "k": 256},
    "attention": ATTENTION,
    "attention_backward": ATTENTION,
}
"""Sizes of kernels with tiles whose rows are aligned, as those of models are: operands then go to shared memory."""


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


def spilled(made: object, log: str) -> int:
    """Bytes of registers that each thread stores in memory and loads again, as the assembler tells."""
    if "amdgcn" in made.asm:
        return 4 * sum(map(int, re.findall(r"vgpr_spill_count:\s+(\d+)", made.asm["amdgcn"])))
    return sum(map(int, re.findall(r"(\d+) bytes spill stores", log)))


def main(backend: str, architecture: str) -> None:
    name: int | str = int(architecture) if architecture.isdigit() else architecture
    driver.set_active(_NoDevice(GPUTarget(backend, name, 32 if backend == "cuda" else 64)))
    limit = SHARED_BYTES[architecture]
    shared_memory.of_block = lambda: limit
    shared_memory.is_amd = lambda: backend == "hip"
    knobs.nvidia.dump_ptxas_log = True
    compiled: list[str] = []

    def instead(function, grid):
        def compile_only(*arguments, **constants):
            log = io.StringIO()
            with contextlib.redirect_stdout(log):
                made = function.warmup(*arguments, grid=(1,), **constants)
            if stored := spilled(made, log.getvalue()):
                print(f"{function.__name__} spills {stored} bytes: {constants}")
            if stored > MOST_SPILLED:
                sys.exit(f"{function.__name__} spills {stored} bytes a thread, {MOST_SPILLED} at most")
            if made.metadata.shared > limit:
                sys.exit(
                    f"{function.__name__} needs {made.metadata.shared} bytes of shared memory, has {limit}"
                )
            compiled.append(
                f"{function.__name__} {max(made.asm, key=lambda kind: kind in ('ptx', 'amdgcn'))}"
            )

        return compile_only

    JITFunction.__getitem__ = instead
    for kernel in kernels().values():
        triton_code = kernel.backend("triton")
        dtype = "bfloat16" if "bfloat16" in triton_code.dtypes else triton_code.dtypes[0]
        for case in (kernel.cases[0], *([REAL[kernel.name]] if kernel.name in REAL else [])):
            sizes = {**kernel.options, **case}
            inputs = kernel.inputs(sizes, getattr(torch, dtype), torch.Generator().manual_seed(0))
            tile = triton_code.tiles(sizes, dtype)[0]
            triton_code.load()(inputs, sizes, tile, empty("cpu"))
        print(kernel.name, len(compiled), flush=True)
    print(f"{len(compiled)} launches of {len(set(compiled))} kernels compiled for {backend} {architecture}")


if __name__ == "__main__":
    main(*sys.argv[1:])
