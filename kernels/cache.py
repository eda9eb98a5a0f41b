"""The fastest tiles that were measured on this machine, for whoever runs a kernel later.

One file per user (`store.py`): a crash leaves the old one, and processes that write at once wait for each other. A
tile counts for the device, its software, the backend's compiler, the dtype and the class of shapes that it was
measured for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from towtank.kernels import store
from towtank.kernels.device import device_name, software
from towtank.kernels.records import Sizes, Tile
from towtank.kernels.registry import kernels

FILE = "tiles.json"


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tile and what was measured of it."""

    tile: Tile
    seconds: float
    default_seconds: float
    """Of the backend's default tile, measured in turn with it."""
    sizes: Sizes
    """The sizes that it was measured at; its class has others."""
    date: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a tile is wanted for."""

    kernel: str
    backend: str
    dtype: str
    sizes: Sizes
    device: str
    """Device type: cpu or cuda."""

    @property
    def key(self) -> str:
        """Text that differs where the fastest tile may."""
        parts = (
            device_name(self.device), build_of(self.backend, self.device),
            self.kernel, self.backend, self.dtype, shape_class(self.whole),
        )  # fmt: skip
        return " | ".join(parts)

    @property
    def whole(self) -> Sizes:
        """The sizes with those that may be left out, in the order of the kernel: the same for whoever asks."""
        kernel = kernels()[self.kernel]
        given = {**kernel.options, **self.sizes}
        return {name: given[name] for name in (*kernel.dimensions, *kernel.options) if name in given}


def shape_class(sizes: Sizes) -> str:
    """Sizes rounded up to powers of two: what lies between shares its tile. A switch that is off is 0."""
    return " ".join(
        f"{name}<={1 << (size - 1).bit_length() if size > 0 else 0}" for name, size in sizes.items()
    )


def build_of(backend: str, device: str) -> str:
    """Versions of all that makes a backend's code."""
    if backend != "c":
        return software(device)
    from towtank.kernels.c_code.compiler import here

    return f"{software(device)} {here().version}"


def lookup(question: Question) -> Tuned | None:
    """The tile that was found for sizes of this class; None where none was."""
    found = _kept(question).get("best")
    try:
        tuned = Tuned(**found) if isinstance(found, dict) else None
    except TypeError:  # of another version, or edited by hand
        return None
    return tuned if tuned is not None and _is_tile(tuned.tile) else None


def keep(question: Question, tuned: Tuned) -> None:
    """Record what a search found; it takes the place of what was found before.

    Raises:
        OSError: the cache folder cannot be written.
    """

    def change(entries: store.Entries) -> None:
        _part(entries, question.key)["best"] = asdict(tuned)

    store.update(_path(), change)


def trials(question: Question) -> list[tuple[Tile, float]]:
    """Tiles that were measured at exactly these sizes with their seconds: where a search goes on from."""
    found = _kept(question).get("trials")
    kept = found.get(_sizes(question.whole)) if isinstance(found, dict) else None
    return [(dict(tile), float(seconds)) for tile, seconds in filter(_is_trial, kept or [])]


def _is_tile(value: object) -> bool:
    return isinstance(value, dict) and all(type(each) is int for each in value.values())


def _is_trial(value: object) -> bool:
    """Whether this is a tile with its seconds: the file may have been edited."""
    if not isinstance(value, list) or len(value) != 2 or not _is_tile(value[0]):
        return False
    return isinstance(value[1], int | float) and 0 < value[1] < float("inf")


def _part(entries: store.Entries, name: str) -> store.Entries:
    """Entries within entries, made anew where there are none."""
    if not isinstance(entries.get(name), dict):
        entries[name] = {}
    part: store.Entries = entries[name]
    return part


def add_trial(question: Question, tile: Tile, seconds: float) -> None:
    """Record one measurement at once, so that a search that is broken off loses nothing.

    It takes the place of an earlier one of the same tile.

    Raises:
        OSError: the cache folder cannot be written.
    """
    sizes = _sizes(question.whole)

    def change(entries: store.Entries) -> None:
        of_sizes = _part(_part(entries, question.key), "trials")
        kept = of_sizes.get(sizes)
        others = [each for each in kept if _is_trial(each) and each[0] != dict(tile)] if kept else []
        of_sizes[sizes] = [*others, [dict(tile), seconds]]

    store.update(_path(), change)


def best_tile(question: Question, tiles: Sequence[Tile]) -> Tile:
    """The tile found by a search, else the first of `tiles`, which is the backend's default; also where the tile that
    was found is none, or no longer one, that a search could choose."""
    found = lookup(question)
    if found is None or set(found.tile) != set(tiles[0]):
        return tiles[0]
    return found.tile if found.tile in _space(question, tiles) else tiles[0]


def _space(question: Question, tiles: Sequence[Tile]) -> Sequence[Tile]:
    """All tiles that a search may choose; of the generated C these are more than the backend offers."""
    if question.backend != "c":
        return tiles
    from towtank.kernels.c_code.compiler import here
    from towtank.kernels.c_code.tiles import space

    return space(here(), tiles[0]["threads"])


def _kept(question: Question) -> Mapping[str, Any]:
    """What is kept for a question."""
    found = _entries().get(question.key)
    return found if isinstance(found, dict) else {}


def _sizes(sizes: Sizes) -> str:
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def _path() -> Path:
    return store.cache_folder() / FILE


_READ: dict[tuple[str, int, int], Mapping[str, Any]] = {}


def _entries() -> Mapping[str, Any]:
    """Entries of the file, read again when it has changed."""
    path = _path()
    try:
        state = path.stat()
    except OSError:
        return {}
    key = (str(path), state.st_mtime_ns, state.st_ino)
    if key not in _READ:
        _READ.clear()
        _READ[key] = store.read(path)
    return _READ[key]
