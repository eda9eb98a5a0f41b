"""Which kernels a command is about: names checked, all faults at once."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from towtank.cli.failure import InputError, describe
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.kernels.backends import LIBRARY_DTYPES, library_missing
from towtank.kernels.device import device_types
from towtank.kernels.records import Backend, Kernel, Tile
from towtank.kernels.registry import kernels

PRECISIONS = {
    **dict(zip(("fp32", "fp16", "bf16", "fp64"), LIBRARY_DTYPES, strict=True)),
    "fp8": "float8_e4m3fn",
}
"""Our names of dtypes, with PyTorch's."""
DEVICES = ("cpu", "cuda")

Variant = tuple[Kernel, Backend, str, Tile]


def precision(dtype: str) -> str:
    """Our name of a dtype."""
    return {long: short for short, long in PRECISIONS.items()}.get(dtype, dtype)


def checked_device(device: str | None) -> str:
    """The device type, or the best one here.

    Raises:
        InputError: there is no such device type.
    """
    if device is not None and device not in DEVICES:
        raise InputError(
            f"--device is {' or '.join(DEVICES)}, got {device!r}; GPUs of AMD are cuda to torch as well"
        )
    return device or device_types()[0]


@dataclass(frozen=True, slots=True)
class Choice:
    """Kernels, backends and dtypes that were asked for, on a device that is there."""

    device: str
    pairs: tuple[tuple[Kernel, Backend], ...]
    dtypes: tuple[str, ...]
    skipped: list[str]
    """Backends that cannot run here, with the reason."""

    @classmethod
    def of(cls, kernel: str | None, backend: str | None, dtype: str | None, device: str | None) -> "Choice":
        """Check what was asked for.

        Raises:
            InputError: with all that is wrong, or because nothing of it can run here.
        """
        known = kernels()
        backends = list(dict.fromkeys(each.name for one in known.values() for each in one.backends))
        faults = []
        if kernel is not None and kernel not in known:
            faults.append(
                f"no kernel is named {kernel!r}{did_you_mean(kernel, known)}; known: {', '.join(known)}"
            )
        if backend is not None and backend not in backends:
            faults.append(
                f"no backend is named {backend!r}{did_you_mean(backend, backends)}; known: {', '.join(backends)}"
            )
        if dtype is not None and dtype not in (*PRECISIONS, *PRECISIONS.values()):
            faults.append(f"--dtype is {', '.join(PRECISIONS)}, got {dtype!r}")
        try:
            chosen = checked_device(device)
        except InputError as error:
            faults.append(str(error))
        if faults:
            raise InputError("; ".join(faults))
        if (missing := library_missing(chosen)) is not None:
            raise InputError(missing)
        wanted = [one for one in known.values() if kernel in (None, one.name)]
        dtypes = tuple(PRECISIONS.values()) if dtype is None else (PRECISIONS.get(dtype, dtype),)
        return cls._available(wanted, backend, dtypes, chosen)

    @classmethod
    def _available(
        cls, wanted: list[Kernel], backend: str | None, dtypes: tuple[str, ...], device: str
    ) -> "Choice":
        asked = [(one, by) for one in wanted for by in one.backends if backend in (None, by.name)]
        missing = {by.name: by.missing(device) for _, by in asked}
        skipped = [f"{name}: {why}" for name, why in missing.items() if why is not None]
        pairs = tuple((one, by) for one, by in asked if missing[by.name] is None)
        if not pairs:
            reason = "; ".join(skipped) or f"{wanted[0].name} has no backend {backend}"
            raise InputError(f"nothing of this can run on {device}: {reason}")
        return cls(device, pairs, dtypes, skipped)

    def variants(self, all_tiles: bool = False) -> list[Variant]:
        """Kernel, backend, dtype and tile of everything to try: the default tile, or all of them.

        Raises:
            InputError: no kernel that was asked for has such a dtype.
        """
        found: list[Variant] = []
        for kernel, backend in self.pairs:
            for dtype in (each for each in self.dtypes if each in backend.dtypes):
                tiles = backend.tiles({**kernel.options, **kernel.cases[0]}, dtype)
                found += [(kernel, backend, dtype, tile) for tile in (tiles if all_tiles else tiles[:1])]
        if not found:
            offers = "; ".join(
                f"{kernel.name} by {backend.name} has {', '.join(map(precision, backend.dtypes))}"
                for kernel, backend in self.pairs
            )
            raise InputError(f"nothing has the precision {', '.join(map(precision, self.dtypes))}: {offers}")
        return found


@contextmanager
def writing() -> Iterator[None]:
    """A file or a cache that cannot be written is one clear message.

    Raises:
        InputError: it is so.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {describe(error)}") from error


def check_writable(out: Path) -> None:
    """Whether a table can be written, before anything is measured for it.

    Raises:
        InputError: it cannot.
    """
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file in it, such as {out / 'measurements.csv'}")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise InputError(f"--out {out} cannot be written; name another file")


def progress(done: int, total: int, what: str) -> None:
    """One line on the standard error stream that is written over, if a person watches it."""
    if not sys.stderr.isatty():
        return
    end = "\n" if done == total else ""
    sys.stderr.write(f"\r\033[K  [{done} of {total}] {what[:80]}{end}")
    sys.stderr.flush()
