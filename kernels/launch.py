"""Running a kernel that has been proven right on this device, and the record of those that have."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from towtank.kernels import store
from towtank.kernels.cache import Question, best_tile
from towtank.kernels.device import hardware_name, software, source_version
from towtank.kernels.errors import KernelError
from towtank.kernels.records import Allocate, Backend, Kernel, Sizes, Tile
from towtank.kernels.registry import kernels
from towtank.kernels.validate import Verdict, validate

if TYPE_CHECKING:
    import torch

RECORD = "validated.json"
Unproven = Literal["validate", "refuse"]
"""What happens to a variant that has not passed here: it is validated first, or not used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the record holds of one variant on one device."""

    kernel: str
    backend: str
    dtype: str
    tile: Tile
    passed: bool
    checks: int
    error: float | None
    """Largest relative error over its tolerance; None where something else was wrong."""
    seed: int
    fault: str
    """The first thing that was wrong; empty where nothing was."""
    build: str = ""
    """Compiler of a backend that is compiled here; empty of the others."""


def record(verdict: Verdict, device: str, seed: int) -> Entry:
    """Keep what came of a validation, for this device, its software and this source.

    Raises:
        OSError: the cache folder cannot be written.
    """
    first = verdict.faults[0] if verdict.faults else None
    entry = Entry(
        verdict.kernel,
        verdict.backend,
        verdict.dtype,
        dict(verdict.tile),
        verdict.passed,
        verdict.checks,
        verdict.error if verdict.error != float("inf") else None,
        seed,
        f"{first.case}: {first.text}" if first else "",
        _build(verdict.backend),
    )
    place = _place(device)
    key = _key(entry.kernel, entry.backend, entry.dtype, entry.tile)

    def change(entries: store.Entries) -> None:
        # other software or source: what it knew is void
        kept = _variants(entries, place)
        variants = {**kept, key: {**asdict(entry), "digest": _digest(entry, place)}}
        entries[place["device"]] = {**place, "variants": variants}

    store.update(store.cache_folder() / RECORD, change)
    if verdict.passed:
        _PASSED.add((device, key))
    return entry


def recorded(device: str) -> list[Entry]:
    """Variants that were tried on this device with this software and source."""
    place = _place(device)
    variants = _variants(store.read(store.cache_folder() / RECORD), place)
    return [entry for each in variants.values() if (entry := _entry(each, place)) is not None]


def _variants(entries: store.Entries, place: dict[str, Any]) -> dict[str, Any]:
    """Variants of a record that were tried with this software and source."""
    here = entries.get(place["device"])
    if not isinstance(here, dict) or {name: here.get(name) for name in place} != place:
        return {}
    variants = here.get("variants")
    return variants if isinstance(variants, dict) else {}


def _entry(kept: object, place: dict[str, Any]) -> Entry | None:
    """An entry as it was written; None where it was changed since, or tells of another compiler."""
    if not isinstance(kept, dict):
        return None
    try:
        entry = Entry(**{name: value for name, value in kept.items() if name != "digest"})
    except TypeError:
        return None
    written = kept.get("digest") == _digest(entry, place)
    return entry if written and entry.build == _build(entry.backend) else None


def _digest(entry: Entry, place: dict[str, Any]) -> str:
    """What tells an entry that was written by `record` from one that was edited: no lock, but no accident either."""
    text = json.dumps([asdict(entry), place], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _build(backend: str) -> str:
    """The compiler that makes a backend's code on this machine; another one asks for validation anew."""
    if backend != "c":
        return ""
    from towtank.kernels.c_code.compiler import here

    try:
        target = here()
    except KernelError:
        return "none"
    return f"{target.compiler} {target.version}"


def has_passed(kernel: str, backend: str, dtype: str, tile: Tile, device: str) -> bool:
    """Whether a variant has been validated on this device; looked up once, then remembered."""
    key = (device, _key(kernel, backend, dtype, tile))
    if key not in _PASSED:
        _PASSED.update(
            (device, _key(each.kernel, each.backend, each.dtype, each.tile))
            for each in recorded(device)
            if each.passed
        )
    return key in _PASSED


_PASSED: set[tuple[str, str]] = set()


def _key(kernel: str, backend: str, dtype: str, tile: Tile) -> str:
    parts = (kernel, backend, _build(backend), dtype, json.dumps(dict(tile), sort_keys=True))
    return " ".join(part for part in parts if part)


def _place(device: str) -> dict[str, Any]:
    kind = f"{device}: {hardware_name(device)}; {software(device)}"
    return {"device": kind, "source": source_version()}


def launch(
    name: str,
    inputs: "Sequence[torch.Tensor]",
    sizes: Sizes,
    *,
    backend: str = "library",
    tile: Tile | None = None,
    unproven: Unproven = "validate",
) -> "tuple[torch.Tensor, ...]":
    """Run a kernel on tensors of one device, if this variant of it is right there.

    Raises:
        KernelError: there is no such kernel or backend, it cannot run here, or it has not passed validation.
    """
    device = inputs[0].device.type
    dtype = str(inputs[0].dtype).removeprefix("torch.")
    kernel, chosen = find(name, backend, device)
    sizes = {**kernel.options, **sizes}
    if tile is None:
        tile = best_tile(Question(name, backend, dtype, sizes, device), chosen.tiles(sizes, dtype))
    require(kernel, chosen, dtype, tile, device, unproven)
    return chosen.load()(inputs, sizes, tile, empty(device))


def require(
    kernel: Kernel, backend: Backend, dtype: str, tile: Tile, device: str, unproven: Unproven = "validate"
) -> None:
    """Make sure that a variant has passed on this device.

    Raises:
        KernelError: it has not, and was not to be tried; or it was tried and failed.
    """
    if has_passed(kernel.name, backend.name, dtype, tile, device):
        return
    if dtype not in backend.dtypes:
        raise KernelError(
            f"{kernel.name} by {backend.name} has no {dtype}; it has {', '.join(backend.dtypes)}"
        )
    what = f"{kernel.name} ({backend.name}, {dtype}, tile {dict(tile)})"
    if unproven == "refuse":
        raise KernelError(
            f"{what} has not passed validation on this device; "
            f"run `towtank kernels validate --kernel {kernel.name} --backend {backend.name} --device {device}`"
        )
    with store.alone(RECORD + ".trial"):  # of processes that start at once, one tries and the others read
        if has_passed(kernel.name, backend.name, dtype, tile, device):
            return
        seed = fresh_seed()
        verdict = validate(kernel, backend, dtype, tile, device=device, seed=seed)
        with suppress(
            OSError
        ):  # a home that cannot be written is no reason to stop: the next process tries again
            record(verdict, device, seed)
    if verdict.passed:
        _PASSED.add((device, _key(kernel.name, backend.name, dtype, tile)))
    else:
        fault = verdict.faults[0]
        raise KernelError(
            f"{what} is wrong on this device and is not used: {fault.case} (seed {seed}): {fault.text}"
        )


def find(name: str, backend: str, device: str) -> tuple[Kernel, Backend]:
    """A kernel and one of its backends that can run on a device type.

    Raises:
        KernelError: there is no such kernel or backend, or it cannot run here.
    """
    known = kernels()
    if name not in known:
        raise KernelError(f"no kernel is named {name!r}; known: {', '.join(known)}")
    kernel = known[name]
    if backend not in {each.name for each in kernel.backends}:
        raise KernelError(
            f"{name} has no backend {backend!r}; it has {', '.join(each.name for each in kernel.backends)}"
        )
    chosen = kernel.backend(backend)
    if (missing := chosen.missing(device)) is not None:
        raise KernelError(f"backend {backend} cannot run on {device}: {missing}")
    return kernel, chosen


def fresh_seed() -> int:
    """A seed that differs from run to run; whoever uses it says which it was."""
    return secrets.randbelow(2**31)


def empty(device: str) -> Allocate:
    """An allocator that leaves memory as it finds it."""
    import torch

    def allocate(*shape: int, dtype: "torch.dtype") -> "torch.Tensor":
        return torch.empty(shape, dtype=dtype, device=device)

    return allocate
