"""Search for tiles: the part of `towtank kernels tune` for backends that have them."""

import re
import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from towtank.cli.failure import InputError, complain

if TYPE_CHECKING:
    from towtank.autotune.tiles.search import Found
    from towtank.autotune.tiles.tuner import Outcome
    from towtank.hardware_profiles.records import Device
    from towtank.kernels.cache import Question

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as 60s, 2m, 90 or 1h.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)?", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise InputError(f"--budget is a time such as 60s, 2m or 1h; got {text!r}")
    return float(match[1]) * UNITS[match[2] or ""]


def backend_with_tiles(device: str) -> str:
    """The backend whose tiles are searched on a device type where none is named."""
    return "c" if device == "cpu" else "triton"


def tune_tiles(
    kernel: str,
    backend: str,
    dtype: str,
    sizes: dict[str, int],
    device: str,
    *,
    seconds: float,
    trials: int | None,
    profile: str | None,
    fresh: bool,
    json: bool,
) -> None:
    """Search tiles of one product, keep the best for this device, and print it.

    Raises:
        InputError: the profile is missing, or the cache cannot be written.
        KernelError: the backend cannot run here, or no tile is right.
    """
    from towtank.autotune.tiles.search import Budget
    from towtank.autotune.tiles.tuner import tune
    from towtank.cli.kernels_choice import writing
    from towtank.cli.text import emit, emit_json, plural
    from towtank.kernels.cache import Question

    question = Question(kernel, backend, dtype, sizes, device)
    budget = Budget(seconds, trials) if trials is not None else Budget(seconds)
    shown = _Progress(seconds, _flop(question))
    found = _profile(profile, device)
    try:
        with writing():
            outcome = tune(question, budget, profile=found, fresh=fresh, progress=shown.after)
    except KeyboardInterrupt:
        shown.end()
        told = f"{plural(shown.measured, 'tile')} of this product {'is' if shown.measured == 1 else 'are'} measured"
        complain(f"broken off: {told} and kept; run it again to go on")
        raise typer.Exit(130) from None
    shown.end()
    if json:
        emit_json(_plain(outcome))
    else:
        emit(_text(outcome))


def _profile(name: str | None, device: str) -> "Device | None":
    """The profile that was named, or else that of the GPU at hand."""
    if device == "cpu":
        return None
    from towtank.hardware_profiles.load import list_devices, load_device

    if name is not None:
        return load_device(name)
    import torch

    properties = torch.cuda.get_device_properties(0)
    words = set(re.split(r"[^a-z0-9]+", properties.name.lower()))
    alike = [load_device(each) for each in list_devices() if each.split("-")[0] in words]
    if not alike:
        raise InputError(
            f"no device profile is named after {properties.name}; name one, such as --profile h200-141gb"
        )
    return min(alike, key=lambda each: abs((each.memory_capacity_bytes or 0) - properties.total_memory))


class _Progress:
    """A line on the standard error stream that is written over, if a person watches it."""

    def __init__(self, seconds: float, flop: float) -> None:
        self._seconds, self._flop, self._start = seconds, flop, time.monotonic()
        self._shows = sys.stderr.isatty()
        self.measured = 0

    def after(self, found: "Found") -> None:
        """Show where the search is."""
        self.measured = len(found.measured)
        if not self._shows or not found.measured:
            return
        gone = time.monotonic() - self._start
        part = min(1.0, gone / self._seconds)
        bar = "#" * round(20 * part) + "." * (20 - round(20 * part))
        rate = self._flop / found.best[1] / 1e9
        sys.stderr.write(
            f"\r\033[K  [{bar}] {gone:.0f} of {self._seconds:.0f} s, {len(found.measured)} tiles measured, "
            f"{found.weeded} weeded out, best {rate:,.0f} GFLOP/s"
        )
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line as it is."""
        if self._shows:
            sys.stderr.write("\n")


def _flop(question: "Question") -> float:
    from towtank.kernels.registry import kernels

    kernel = kernels()[question.kernel]
    return kernel.cost({**kernel.options, **question.sizes}, question.dtype).flop


def _rate(outcome: "Outcome", seconds: float) -> float:
    return _flop(outcome.question) / seconds / 1e9


def _plain(outcome: "Outcome") -> dict[str, Any]:
    question, best = outcome.question, outcome.best
    return {
        "kernel": question.kernel,
        "backend": question.backend,
        "dtype": question.dtype,
        "device": question.device,
        "sizes": dict(question.sizes),
        "tile": dict(best.tile),
        "seconds": best.seconds,
        "gflop_per_s": _rate(outcome, best.seconds),
        "default_tile": dict(outcome.default),
        "default_seconds": best.default_seconds,
        "gain": best.default_seconds / best.seconds,
        "predicted_seconds": outcome.predicted_seconds,
        "space": outcome.space,
        "known": outcome.known,
        "measured": outcome.measured,
        "refused": outcome.refused,
        "weeded": outcome.weeded,
    }


def _predicted(outcome: "Outcome") -> str:
    if outcome.predicted_seconds is None:
        return ""
    return f" and predicts {outcome.predicted_seconds * 1e3:.3f} ms for the tile found"


def _text(outcome: "Outcome") -> str:
    from towtank.cli.kernels_text import tile_text
    from towtank.cli.text import table

    best = outcome.best
    rows = [
        ("found", tile_text(best.tile), f"{best.seconds * 1e3:.3f}", f"{_rate(outcome, best.seconds):,.1f}"),
        (
            "default",
            tile_text(outcome.default),
            f"{best.default_seconds * 1e3:.3f}",
            f"{_rate(outcome, best.default_seconds):,.1f}",
        ),
    ]
    sizes = "x".join(str(size) for size in outcome.question.sizes.values())
    earlier = f", {outcome.known} of an earlier search" if outcome.known else ""
    refused = f", {outcome.refused} refused by validation" if outcome.refused else ""
    return "\n".join(
        [
            f"Tiles of {outcome.question.kernel} {sizes} by {outcome.question.backend}\n",
            table(rows, ("", "tile", "ms", "GFLOP/s"), right=(2, 3)),
            "",
            f"{best.default_seconds / best.seconds:.2f}x the speed of the default, by medians measured in turn.",
            f"{outcome.measured} of {outcome.space} tiles measured{earlier}{refused}; the model weeded out "
            f"{outcome.weeded} proposals{_predicted(outcome)}.",
            "Kept for this device, precision and class of shapes: kernels of this backend use it from now on.",
        ]
    )
