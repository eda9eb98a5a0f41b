"""Recorded times of all tiles of the Triton multiply on a GPU, and what the model of tiles says of them.

`python -m towtank.autotune.tiles.gpu_captures --profile h200-141gb --out FILE.csv.gz` records the GPU at hand, shape
by shape, and goes on with a record that was broken off;
`--judge FILE.csv.gz --profile NAME` compares a record with the model, without a GPU.
"""

import argparse
import datetime
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from towtank.autotune.tiles import gpu_model
from towtank.autotune.tiles.captures import DIMENSIONS, Capture, Record, parse, to_bytes
from towtank.hardware_profiles.load import load_device
from towtank.hardware_profiles.records import Device
from towtank.kernels.records import Sizes, Tile

SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192), (4096, 14336, 4096), (1024, 4096, 8192))
"""Square products, and those of layers, of m x n x k."""
DTYPE = "bfloat16"
TOP = 10
WITHIN = 1.05
CLOSE = 0.02
"""Largest difference to the library's product over its largest element; bf16 rounds by 0.4 %."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the model orders the tiles of one shape."""

    shape: tuple[int, ...]
    tiles: int
    correlation: float
    """Spearman's."""
    top: float
    """Time of the best of the model's top tiles over the least of all."""


def judge(capture: Capture, device: Device) -> Iterator[Judgement]:
    """The model against each shape of a capture."""
    import numpy as np

    from towtank.autotune.tiles.fit import spearman

    for shape in capture.shapes():
        own = capture.of(shape)
        predicted = np.array([gpu_model.seconds(each.sizes, each.tile, DTYPE, device) for each in own])
        measured = np.array([each.least_s for each in own])
        best = measured[predicted.argsort(kind="stable")[:TOP]].min()
        yield Judgement(shape, len(own), spearman(predicted, measured), float(best / measured.min()))


def candidates(device: Device, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[Tile]:
    """Tiles of the Triton multiply that fit a multiprocessor, the default first."""
    from towtank.kernels.matmul import triton_tiles

    sizes = dict(zip(DIMENSIONS, shapes[0], strict=True))
    tiles = triton_tiles(sizes, DTYPE)
    return [tile for tile in tiles if gpu_model.seconds(sizes, tile, DTYPE, device) < float("inf")]


def record(
    tiles: Sequence[Tile],
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    *,
    jobs: int = 12,
    progress: Callable[[str], None] = lambda text: None,
    known: Capture | None = None,
    keep: Callable[[Capture], None] = lambda capture: None,
) -> Capture:
    """Time tiles on the GPU at hand. A tile that does not run, or whose product is not the library's, is left out.

    Args:
        tiles: of the multiply.
        shapes: m x n x k.
        jobs: processes that compile.
        progress: called with what is done next.
        known: an earlier record, whose shapes are not measured again if it is of this GPU and software.
        keep: called with the record so far after each shape.

    Raises:
        KernelError: there is no GPU.
    """
    from towtank.kernels.device import device_name, software
    from towtank.kernels.launch import find

    find("matmul", "triton", "cuda")
    progress(f"compiling {len(tiles)} tiles")
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(_compiles, tiles))
    kept = [tile for tile, right in zip(tiles, runs, strict=True) if right]
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    heading = (
        f"Device: {device_name('cuda')}. Software: {software('cuda')}. Date: {date}. Kernel: matmul, backend triton, "
        f"{DTYPE}, y = x W^T. Times between events, least and median; all tiles of a shape in turn. By python -m "
        "towtank.autotune.tiles.gpu_captures."
    )
    found = Capture(heading, ())
    if known is not None and known.heading.partition(" Date: ")[0] == heading.partition(" Date: ")[0]:
        found = known
    for shape in (each for each in shapes if each not in found.shapes()):
        progress(f"{'x'.join(map(str, shape))}: {len(kept)} tiles")
        more = _timed(dict(zip(DIMENSIONS, shape, strict=True)), kept)
        found = Capture(heading, (*found.records, *more))
        keep(found)
    return found


def _call(sizes: Sizes, tile: Tile) -> "Callable[[], object]":
    from towtank.kernels.bench import prepared_call
    from towtank.kernels.registry import kernels

    kernel = kernels()["matmul"]
    return prepared_call(kernel, kernel.backend("triton"), sizes, DTYPE, tile, "cuda")


def _compiles(tile: Tile) -> bool:
    """Run a tile once, which leaves its code in the compiler's cache; sizes that are multiples of 16 share it."""
    import torch

    try:
        _call({"m": 512, "n": 512, "k": 512}, tile)()
        torch.cuda.synchronize()
    except Exception:  # whatever a compiler or a driver says: this tile is not for this device
        return False
    return True


def _timed(sizes: Sizes, tiles: Sequence[Tile]) -> Iterator[Record]:
    import torch

    from towtank.kernels.bench import bound_call, inputs_for
    from towtank.kernels.launch import empty
    from towtank.kernels.registry import kernels
    from towtank.kernels.timing import timings

    kernel = kernels()["matmul"]
    backend = kernel.backend("triton")
    x, weight = inputs_for(kernel, sizes, DTYPE, "cuda")
    expected = torch.mm(x, weight.t()).float()
    calls, right = [], []
    for tile in tiles:
        call = bound_call(backend, (x, weight), sizes, tile, "cuda")
        (found,) = backend.load()((x, weight), sizes, tile, empty("cuda"))
        if float((found.float() - expected).abs().max()) <= CLOSE * float(expected.abs().max()):
            calls.append(call)
            right.append(tile)
    for tile, timing in zip(right, timings(calls, "cuda", samples=7, budget_s=20.0), strict=True):
        yield Record(sizes, tile, timing.least_s, timing.median_s)


def _record_to(out: Path, device: Device) -> Capture:
    if not out.parent.is_dir():  # better now than after minutes of measuring
        raise OSError(f"the folder {out.parent} does not exist; make it first")

    def keep(capture: Capture) -> None:  # in one step, so that a crash leaves what was there
        part = out.with_name(f"{out.name}.part")
        part.write_bytes(to_bytes(capture))
        os.replace(part, out)

    known = parse(out.read_bytes()) if out.exists() else None
    return record(
        candidates(device), progress=lambda text: print(text, file=sys.stderr), known=known, keep=keep
    )


def main() -> None:
    """Record a GPU, or judge a record."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--profile", required=True, help="device profile, such as h200-141gb")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--judge", type=Path)
    options = parser.parse_args()
    if (options.out is None) == (options.judge is None):
        parser.error("give either --out to record or --judge to compare")
    try:
        device = load_device(options.profile)
        capture = _record_to(options.out, device) if options.out else parse(options.judge.read_bytes())
    except (OSError, EOFError, ValueError) as error:  # ours, of profiles and of kernels, are of the last kind
        parser.error(str(error))
    print(capture.heading)
    print(f"shape               tiles  Spearman  best of top {TOP} over best of all")
    for each in judge(capture, device):
        shape = "x".join(map(str, each.shape))
        print(f"{shape:18} {each.tiles:6d}  {each.correlation:8.3f}  {each.top:.3f}")


if __name__ == "__main__":
    main()
