"""Tuning a kernel on the device at hand: its space of tiles, the model that knows them, and the cache of results."""

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from statistics import median
from typing import TYPE_CHECKING

import yaml

from towtank.autotune.tiles import cpu_model, gpu_model
from towtank.autotune.tiles.search import Budget, Found, key_of, search
from towtank.kernels import cache as tile_cache
from towtank.kernels.bench import bound_call, inputs_for
from towtank.kernels.c_code.compiler import here
from towtank.kernels.c_code.tiles import space
from towtank.kernels.cache import Question, Tuned
from towtank.kernels.errors import KernelError
from towtank.kernels.launch import find, require
from towtank.kernels.parallel import prove_tiles, usual_jobs
from towtank.kernels.records import Backend, Kernel, Sizes, Tile, no_tiles
from towtank.kernels.registry import kernels
from towtank.kernels.timing import timings

if TYPE_CHECKING:
    from towtank.hardware_profiles.records import Device

PRODUCTS = {"matmul": "mnk", "matmul_dgrad": "mkn", "matmul_wgrad": "nkm", "fp8_matmul": "mnk"}
"""Rows, columns and summed dimension of each product whose tiles a model predicts, by the names of its kernel's
sizes. Of other kernels with tiles nothing is known before they are measured."""
BACKENDS = ("c", "triton")
PROVEN_AT_ONCE = 11
"""Most promising tiles that several processes validate before a search on a GPU: a compiler takes seconds."""
FINALISTS = 4
"""Fastest tiles that are measured again, in turn with the default: the fastest of many noisy times is partly the
luckiest."""
SAMPLE_BUDGET_S = 0.3
"""For the samples of one tile; at least three are taken, but two of a call on a CPU that takes longer than that."""
SEARCHING = 0.8
"""Share of the budget that the search gets; the rest is for the comparison of the fastest."""
COMPARISON_S = 10 * SAMPLE_BUDGET_S
"""Longest comparison of calls that are short."""

Progress = Callable[[Found], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search on this device came to."""

    question: Question
    best: Tuned
    default: Tile
    space: int
    known: int
    """Measurements of an earlier search that were gone on with."""
    measured: int
    refused: int
    """Tiles that did not pass validation and were not measured."""
    weeded: int
    predicted_seconds: float | None
    """Of the best tile, by the model, where there is one."""


def tune(
    question: Question,
    budget: Budget,
    *,
    profile: "Device | None" = None,
    fresh: bool = False,
    seed: int = 0,
    progress: Progress = lambda found: None,
) -> Outcome:
    """Search tiles for one product on this device, keep the best, and return it.

    Args:
        question: kernel, backend, dtype, sizes and device type.
        budget: seconds and measurements; a fifth of the seconds is for the final comparison. Of a slow product one
            measurement, and two calls of the fastest tile and the default each, may take longer than that.
        profile: the device's profile, for backends on GPUs.
        fresh: measure again what an earlier search measured.
        seed: of the proposals.
        progress: called after each measurement.

    Raises:
        KernelError: the kernel has no tiles to choose from, the backend cannot run here, no profile was given, or no
            tile passed validation.
    """
    kernel, backend = find(question.kernel, question.backend, question.device)
    _check(question, backend)
    tiles, predict = _space(question, backend, profile)
    space_of = {key_of(tile) for tile in tiles}
    known = [] if fresh else [each for each in tile_cache.trials(question) if key_of(each[0]) in space_of]
    run = _Measurements(question, kernel, backend)
    if question.device != "cpu":
        promising = sorted(tiles, key=predict)[:PROVEN_AT_ONCE]
        jobs = usual_jobs(question.device)
        prove_tiles(kernel, backend, question.dtype, [tiles[0], *promising], question.device, jobs)
    end = time.monotonic() + budget.seconds
    searching = replace(budget, seconds=SEARCHING * budget.seconds)
    found = search(tiles, predict, run.seconds, searching, seed=seed, known=known, progress=progress)
    if not found.measured:
        raise KernelError(
            f"none of {len(found.refused)} tiles can be used here; the first: {run.first_fault}"
        )
    left_s = max(end - time.monotonic(), (1 - SEARCHING) * budget.seconds)
    best = _best(run, found, tiles[0], left_s)
    tile_cache.keep(question, best)
    return Outcome(
        question,
        best,
        tiles[0],
        len(tiles),
        len(known),
        len(found.measured) - len(known),
        len(found.refused),
        found.weeded,
        predict(best.tile) if question.kernel in PRODUCTS else None,
    )


def _best(run: "_Measurements", found: Found, default: Tile, left_s: float) -> Tuned:
    """The fastest of a search by a comparison with the default or, if that cannot be used, with the fastest."""
    finalists = found.fastest(FINALISTS)
    return run.playoff(
        finalists, finalists[0] if default in found.refused else default, found.best[1], left_s
    )


def _check(question: Question, backend: Backend) -> None:
    """Whether there is anything to search.

    Raises:
        KernelError: the kernel has no tiles of this backend, or not this dtype.
    """
    if not _has_tiles(backend):
        raise KernelError(
            f"tiles are searched for {', '.join(kernels_with_tiles())} by {' and '.join(BACKENDS)}, "
            f"got {question.kernel} by {question.backend}"
        )
    if question.dtype not in backend.dtypes:
        raise KernelError(
            f"{question.kernel} by {backend.name} has no {question.dtype}; it has {', '.join(backend.dtypes)}"
        )


def kernels_with_tiles() -> list[str]:
    """Names of kernels whose tiles can be searched by one of the backends."""
    return [name for name, kernel in kernels().items() if any(_has_tiles(each) for each in kernel.backends)]


def _has_tiles(backend: Backend) -> bool:
    return backend.name in BACKENDS and backend.tiles is not no_tiles


def _space(
    question: Question, backend: Backend, profile: "Device | None"
) -> tuple[Sequence[Tile], Callable[[Tile], float]]:
    """Tiles, the default first, and their predicted seconds; the same for all where there is no model."""
    if question.kernel not in PRODUCTS:
        return backend.tiles(question.whole, question.dtype), lambda tile: 1.0
    sizes = product_sizes(question)
    if question.backend == "c":
        import torch

        target = here()
        cpu = cpu_model.cpu_here(target.vector_floats, target.registers)
        return space(target, torch.get_num_threads()), lambda tile: cpu_model.seconds(
            sizes, tile, cpu, cpu_rates()
        )
    if profile is None:
        raise KernelError("tiles of triton are predicted from a device's profile; name it with --profile")
    tiles = backend.tiles(question.whole, question.dtype)
    predict = partial(gpu_model.seconds, sizes, dtype=question.dtype, device=profile)
    fitting = [tile for tile in tiles if predict(tile) < float("inf")]
    return fitting, predict


def product_sizes(question: Question) -> Sizes:
    """m, n and k of the product A B that a kernel computes."""
    return {name: question.sizes[own] for name, own in zip("mnk", PRODUCTS[question.kernel], strict=True)}


@cache
def cpu_rates() -> Mapping[str, float]:
    """Seconds of each count of the CPU model, as fitted to the recorded times."""
    text = resources.files("towtank.autotune.tiles").joinpath("cpu_rates.yaml").read_text("utf-8")
    rates: dict[str, float] = yaml.safe_load(text)["seconds"]
    return rates


class _Measurements:
    """Runs tiles of one product on inputs that stay the same."""

    def __init__(self, question: Question, kernel: Kernel, backend: Backend) -> None:
        self._question, self._kernel, self._backend = question, kernel, backend
        self._inputs = inputs_for(kernel, question.whole, question.dtype, question.device)
        self.first_fault = ""
        """Why the first tile that could not be used could not."""

    def seconds(self, tile: Tile) -> float | None:
        """Least time of a tile, recorded at once; None where it does not pass validation or cannot run."""
        question = self._question
        try:
            require(self._kernel, self._backend, question.dtype, tile, question.device)
            least_s = self._least_s(self._call(tile))
        except KernelError as error:
            self.first_fault = self.first_fault or str(error)
            return None
        except Exception as error:  # of these sizes, such as more shared memory than there is
            if question.backend != "triton":
                raise
            self.first_fault = self.first_fault or f"{type(error).__name__}: {error}"
            return None
        tile_cache.add_trial(question, tile, least_s)
        return least_s

    def _least_s(self, call: Callable[[], object]) -> float:
        if self._question.device == "cpu" and (first := _once(call)) > SAMPLE_BUDGET_S:
            return min(first, _once(call))
        (timing,) = timings([call], self._question.device, samples=5, budget_s=SAMPLE_BUDGET_S)
        return timing.least_s

    def playoff(self, tiles: Sequence[Tile], default: Tile, usual_s: float, budget_s: float) -> Tuned:
        """The fastest of a few tiles and the default by median, all measured in turn.

        `usual_s` is what a call takes: of slow ones fewer are compared, so that it ends within its budget.
        """
        question = self._question
        require(self._kernel, self._backend, question.dtype, default, question.device)
        entries = [default, *(tile for tile in tiles if tile != default)]
        if question.device == "cpu" and usual_s > SAMPLE_BUDGET_S:
            entries = entries[: max(2, int(min(budget_s / (2 * usual_s), len(entries))))]
            medians = self._medians_of_few(entries, budget_s / usual_s)
        else:
            budget = min(COMPARISON_S, max(budget_s, SAMPLE_BUDGET_S))
            calls = [self._call(tile) for tile in entries]
            times = timings(calls, question.device, samples=15, budget_s=budget)
            medians = [timing.median_s for timing in times]
        first = min(range(len(entries)), key=medians.__getitem__)
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        return Tuned(entries[first], medians[first], medians[0], question.sizes, date)

    def _medians_of_few(self, entries: Sequence[Tile], most_calls: float) -> list[float]:
        calls = [self._call(tile) for tile in entries]
        turns = max(2, int(min(most_calls / len(calls), 5)))
        rounds = [[_once(call) for call in calls] for _ in range(turns)]
        return [median(times) for times in zip(*rounds, strict=True)]

    def _call(self, tile: Tile) -> Callable[[], object]:
        return bound_call(self._backend, self._inputs, self._question.whole, tile, self._question.device)


def _once(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
