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
    found = _entries().get(question.key, {}).get("best")
    return None if found is None else Tuned(**found)


def keep(question: Question, tuned: Tuned) -> None:
    """Record what a search found; it takes the place of what was found before.

    Raises:
        OSError: the cache folder cannot be written.
    """

    def change(entries: store.Entries) -> None:
        entries.setdefault(question.key, {})["best"] = asdict(tuned)

    store.update(_path(), change)


def trials(question: Question) -> list[tuple[Tile, float]]:
    """Tiles that were measured at exactly these sizes with their seconds: where a search goes on from."""
    kept = _entries().get(question.key, {}).get("trials", {}).get(_sizes(question.whole), [])
    return [(dict(tile), float(seconds)) for tile, seconds in kept]


def add_trial(question: Question, tile: Tile, seconds: float) -> None:
    """Record one measurement at once, so that a search that is broken off loses nothing.

    It takes the place of an earlier one of the same tile.

    Raises:
        OSError: the cache folder cannot be written.
    """
    sizes = _sizes(question.whole)

    def change(entries: store.Entries) -> None:
        of_sizes = entries.setdefault(question.key, {}).setdefault("trials", {})
        others = [each for each in of_sizes.get(sizes, []) if each[0] != dict(tile)]
        of_sizes[sizes] = [*others, [dict(tile), seconds]]

    store.update(_path(), change)


def best_tile(question: Question, tiles: Sequence[Tile]) -> Tile:
    """The tile found by a search, else the first of `tiles`, which is the backend's default; also where the
    backend has got other parameters since the search."""
    found = lookup(question)
    return tiles[0] if found is None or set(found.tile) != set(tiles[0]) else found.tile


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
