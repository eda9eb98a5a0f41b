"""Recorded times of all tiles of some products on one device, to fit models to and to try searches on without it.

`python -m towtank.autotune.tiles.captures --out FILE.csv.gz` records the generated C multiply on one core of this
machine.
"""

import argparse
import csv
import datetime
import gzip
import hashlib
import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from statistics import median

from towtank.autotune.tiles.journal import Journal, Sample
from towtank.kernels.records import Sizes, Tile

SHAPES = (
    (512, 512, 512), (768, 768, 768), (2048, 256, 512), (128, 3072, 768), (1024, 1024, 512), (64, 1024, 2048),
)  # fmt: skip
"""Square, tall and wide products of m x n x k that take a few milliseconds."""
ROUNDS = 4
DIMENSIONS = ("m", "n", "k")
TIMES = ("least_s", "median_s")


@dataclass(frozen=True, slots=True)
class Record:
    """One tile at one shape."""

    sizes: Sizes
    tile: Tile
    least_s: float
    median_s: float


@dataclass(frozen=True, slots=True)
class Capture:
    """A table of times with what it was recorded on."""

    heading: str
    records: tuple[Record, ...]

    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes in it, in their order."""
        return list(dict.fromkeys(tuple(each.sizes.values()) for each in self.records))

    def of(self, shape: Sequence[int]) -> list[Record]:
        """Records of one shape."""
        return [each for each in self.records if tuple(each.sizes.values()) == tuple(shape)]


def shipped() -> list[str]:
    """Names of the captures that come with towtank."""
    folder = resources.files("towtank.kernels").joinpath("captures")
    return sorted(each.name for each in folder.iterdir() if each.name.endswith("tiles.csv.gz"))


def load(name: str) -> Capture:
    """A capture that comes with towtank.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    return parse(resources.files("towtank.kernels").joinpath("captures", name).read_bytes())


def parse(content: bytes) -> Capture:
    """A capture from the bytes of its file."""
    lines = gzip.decompress(content).decode("utf-8").splitlines()
    heading = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return Capture(heading, tuple(_records(rows)))


def _records(rows: "csv.DictReader[str]") -> Iterator[Record]:
    for row in rows:
        tile = {name: int(cell) for name, cell in row.items() if name not in (*DIMENSIONS, *TIMES)}
        sizes = {name: int(row[name]) for name in DIMENSIONS}
        yield Record(sizes, tile, float(row["least_s"]), float(row["median_s"]))


def to_bytes(capture: Capture) -> bytes:
    """A capture as the bytes of its file; the same capture always yields the same."""
    text = io.StringIO()
    text.write(f"# {capture.heading}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*DIMENSIONS, *capture.records[0].tile, *TIMES))
    for each in capture.records:
        times = (f"{each.least_s:.4g}", f"{each.median_s:.4g}")
        writer.writerow((*each.sizes.values(), *each.tile.values(), *times))
    return gzip.compress(text.getvalue().encode("utf-8"), mtime=0)


def record(
    tiles: Sequence[Tile],
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = lambda text: None,
    journal: Path | None = None,
) -> Capture:
    """Time tiles of one thread of the generated C multiply, all of them once in each round, after the first tile.

    The clock is that of the thread's own processor time: it stands still while another process runs. What such a
    process does to caches and to the clock's rate is met by the first tile as well: `median_s` is the median ratio to
    it, times its least time. What is measured is written into the `journal` at once; of one that is there, the same
    record is gone on with.

    Raises:
        KernelError: there is no compiler, a tile is wrong, or the journal is that of another record.
        OSError: the journal cannot be written.
    """
    from towtank.kernels.device import device_name, software
    from towtank.kernels.launch import find, require

    kernel, backend = find("matmul", "c", "cpu")
    heading = heading_of(device_name("cpu").split(",")[0], software("cpu"), rounds)
    kept = Journal(journal, _what(tiles, shapes, rounds, heading)) if journal else None
    samples = kept.samples() if kept else []
    for number, tile in enumerate(tiles, 1):
        progress(f"validated {number} of {len(tiles)} tiles")
        require(kernel, backend, "float32", tile, "cpu")
    calls = [_call(shape) for shape in shapes]
    done = {(each.turn, each.place, each.number) for each in samples}
    for turn, place, number in product(range(rounds), range(len(tiles)), range(len(shapes))):
        if (turn, place, number) in done:
            continue
        progress(f"round {turn + 1} of {rounds}: {place + 1} of {len(tiles)} tiles")
        call = calls[number]
        sample = Sample(
            turn, place, number, _thread_seconds(call, tiles[0]), _thread_seconds(call, tiles[place])
        )
        samples.append(sample)
        if kept:
            kept.add(sample)
    return Capture(heading, tuple(_summed_up(samples, tiles, shapes)))


def _summed_up(
    samples: Sequence[Sample], tiles: Sequence[Tile], shapes: Sequence[tuple[int, int, int]]
) -> Iterator[Record]:
    """A record of each tile at each shape."""
    times: dict[tuple[int, int], list[float]] = {}
    ratios: dict[tuple[int, int], list[float]] = {}
    for each in samples:
        times.setdefault((each.number, each.place), []).append(each.own_s)
        times.setdefault((each.number, 0), []).append(each.first_s)
        ratios.setdefault((each.number, each.place), []).append(each.own_s / each.first_s)
    for (number, place), found in sorted(ratios.items()):
        sizes = dict(zip(DIMENSIONS, shapes[number], strict=True))
        least_s = min(times[number, place])
        yield Record(sizes, tiles[place], least_s, median(found) * min(times[number, 0]))


def _what(tiles: Sequence[Tile], shapes: Sequence[tuple[int, int, int]], rounds: int, heading: str) -> str:
    """What a record is of, but for its date."""
    text = json.dumps([[dict(tile) for tile in tiles], [list(shape) for shape in shapes], rounds])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{heading.partition(' Date: ')[0]} Tiles, shapes and rounds: {digest}."


def _thread_seconds(call: Callable[[Tile], None], tile: Tile) -> float:
    start = time.thread_time()
    call(tile)
    return time.thread_time() - start


def heading_of(device: str, software: str, rounds: int) -> str:
    """What a capture of one core says of itself."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return (
        f"Device: {device}, one core. Software: {software}. Date: {date}. "
        "Kernel: matmul, backend c, float32, y = x W^T. "
        f"Processor time of the thread: least of {rounds} rounds, and median of ratios to the first tile, measured "
        "in turn, times its least. "
        "By python -m towtank.autotune.tiles.captures."
    )


def _call(shape: tuple[int, int, int]) -> Callable[[Tile], None]:
    import torch

    from towtank.kernels.c_code.matmul import multiply

    m, n, k = shape
    x, weight, out = torch.randn(m, k), torch.randn(n, k), torch.empty(m, n)
    return lambda tile: multiply(x, weight.t(), out, tile)


def main() -> None:
    """Record this machine; what was broken off goes on when the same command is run again."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--shapes", default=" ".join("x".join(map(str, each)) for each in SHAPES))
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if not options.out.parent.is_dir():
        parser.error(f"--out {options.out}: the folder {options.out.parent} does not exist; make it first")
    try:
        _record_to(options.out, _shapes(options.shapes), options.rounds)
    except (OSError, ValueError) as error:  # ours are of the last kind
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(f"\nbroken off: what is measured is kept in {_journal(options.out)}; run it again to go on")


def _shapes(text: str) -> list[tuple[int, int, int]]:
    """Shapes from a text such as `512x512x512 64x1024x2048`.

    Raises:
        ValueError: it holds none, or something else.
    """
    found = []
    for each in text.split():
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", each)
        if match is None:
            raise ValueError(f"--shapes are of the form MxNxK, such as 512x512x512; got {each!r}")
        found.append((int(match[1]), int(match[2]), int(match[3])))
    if not found:
        raise ValueError("--shapes: name one at least, such as 512x512x512")
    return found


def _journal(out: Path) -> Path:
    return out.with_name(out.name + ".part")


def _record_to(out: Path, shapes: Sequence[tuple[int, int, int]], rounds: int) -> None:
    from towtank.kernels.c_code.compiler import here
    from towtank.kernels.c_code.tiles import space

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K  {text}")

    tiles = space(here(), 1)
    journal = _journal(out)
    content = to_bytes(record(tiles, shapes, rounds, progress, journal))
    out.write_bytes(content)
    journal.unlink()


if __name__ == "__main__":
    main()
