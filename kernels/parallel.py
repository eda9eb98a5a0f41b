"""Validation of many variants by several processes: on a GPU almost all of it is compilation."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from towtank.kernels.launch import fresh_seed, has_passed, record
from towtank.kernels.records import Backend, Kernel, Tile
from towtank.kernels.registry import kernels
from towtank.kernels.validate import Verdict, validate

MOST = 12
"""Processes at most: each holds a context of the GPU."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing to validate, by names, so that it can be sent to a process."""

    kernel: str
    backend: str
    dtype: str
    tile: Tile


def usual_jobs(device: str) -> int:
    """Processes that validate at once where nobody says how many: one on a CPU, which they would share."""
    if device == "cpu":
        return 1
    return max(1, min(MOST, (os.cpu_count() or 1) - 2))


def verdicts(variants: Sequence[Variant], device: str, seed: int, jobs: int) -> Iterator[Verdict]:
    """What comes of each variant, in their order."""
    if jobs == 1 or len(variants) < 2:
        for variant in variants:
            yield _one(variant, device, seed)
        return
    # fresh processes: a GPU's context does not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(variants)), mp_context=context) as pool:
        try:
            yield from pool.map(_one, variants, [device] * len(variants), [seed] * len(variants))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def prove_tiles(
    kernel: Kernel, backend: Backend, dtype: str, tiles: Sequence[Tile], device: str, jobs: int
) -> None:
    """Validate those tiles that have not passed on this device, and record what comes of it.

    Raises:
        OSError: the cache folder cannot be written.
    """
    left = [
        Variant(kernel.name, backend.name, dtype, tile)
        for tile in tiles
        if not has_passed(kernel.name, backend.name, dtype, tile, device)
    ]
    seed = fresh_seed()
    for verdict in verdicts(left, device, seed, jobs):
        record(verdict, device, seed)


def _one(variant: Variant, device: str, seed: int) -> Verdict:
    kernel = kernels()[variant.kernel]
    backend = kernel.backend(variant.backend)
    return validate(kernel, backend, variant.dtype, variant.tile, device=device, seed=seed)
