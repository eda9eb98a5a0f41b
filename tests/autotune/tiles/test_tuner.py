"""Tuning of kernels that take more sizes than a shape names, with launchers that only look at what they get."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from towtank.autotune.tiles import tuner  # noqa: E402 - needs torch
from towtank.autotune.tiles.search import Budget  # noqa: E402
from towtank.hardware_profiles.load import load_device  # noqa: E402
from towtank.kernels.cache import FILE, Question, add_trial, lookup  # noqa: E402
from towtank.kernels.errors import KernelError  # noqa: E402
from towtank.kernels.records import Sizes, Tile  # noqa: E402
from towtank.kernels.registry import kernels  # noqa: E402
from towtank.kernels.store import cache_folder  # noqa: E402

ATTENTION = {"batch": 1, "sequence": 8, "heads": 2, "kv_heads": 1, "head_dim": 4}
CASES = {
    "attention": ("bfloat16", ATTENTION, {"causal": 1, "window": 0}),
    "attention_backward": ("bfloat16", ATTENTION, {"causal": 1, "window": 0}),
    "fp8_matmul": ("float8_e4m3fn", {"m": 4, "n": 8, "k": 16}, {"by_row": 0}),
}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Sizes]:
    """Sizes of every launch of the Triton backend, whose kernels are not run."""
    seen: list[Sizes] = []

    def launch(inputs: Sequence[object], sizes: Sizes, tile: Tile, allocate: object) -> tuple[()]:
        seen.append(dict(sizes))
        return ()

    def find(name: str, backend: str, device: str):
        kernel = kernels()[name]
        return kernel, replace(kernel.backend(backend), load=lambda: launch)

    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path))
    monkeypatch.setattr(tuner, "find", find)
    monkeypatch.setattr(tuner, "require", lambda *_: None)
    return seen


@pytest.mark.parametrize("name", CASES)
def test_options_that_a_shape_leaves_out_are_launched_and_kept(name: str, launched: list[Sizes]) -> None:
    dtype, sizes, options = CASES[name]
    question = Question(name, "triton", dtype, sizes, "cpu")
    outcome = tuner.tune(question, Budget(trials=2), profile=load_device("h200-141gb"))
    assert outcome.measured == 2
    assert all(each == {**sizes, **options} for each in launched)
    # a launch names them, in an order of its own
    assert lookup(replace(question, sizes={**options, **sizes})) == outcome.best


def test_what_is_measured_again_is_counted_once(launched: list[Sizes]) -> None:
    dtype, sizes, _ = CASES["attention"]
    question = Question("attention", "triton", dtype, sizes, "cpu")
    tuner.tune(question, Budget(trials=3))
    again = tuner.tune(question, Budget(trials=3), fresh=True)
    assert (again.known, again.measured) == (0, 3)
    more = tuner.tune(question, Budget(trials=1))
    assert more.known >= 3 and more.measured == 1
    (entry,) = json.loads((cache_folder() / FILE).read_text())["entries"].values()
    (trials,) = entry["trials"].values()
    assert len(trials) == len({json.dumps(tile, sort_keys=True) for tile, _ in trials})


def test_tiles_that_are_no_longer_in_the_space_do_not_count(launched: list[Sizes]) -> None:
    dtype, sizes, _ = CASES["attention"]
    question = Question("attention", "triton", dtype, sizes, "cpu")
    add_trial(question, {"block_m": 1, "block_n": 1, "warps": 4, "stages": 1}, 1e-9)
    outcome = tuner.tune(question, Budget(trials=1))
    assert (outcome.known, outcome.measured) == (0, 1)


def test_no_tile_that_can_be_used_is_said_with_the_first_reason(
    launched: list[Sizes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def require(kernel: object, backend: object, dtype: str, tile: Tile, device: str) -> None:
        raise KernelError(f"wrong with {tile['warps']} warps")

    monkeypatch.setattr(tuner, "require", require)
    dtype, sizes, _ = CASES["attention"]
    with pytest.raises(
        KernelError, match=r"none of \d+ tiles can be used here; the first: wrong with \d warps"
    ):
        tuner.tune(Question("attention", "triton", dtype, sizes, "cpu"), Budget())


def test_a_slow_product_ends_within_its_budget(
    launched: list[Sizes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock() -> float:  # a call takes 2.7 s, all else nothing
        return 2.7 * len(launched)

    monkeypatch.setattr(tuner.time, "perf_counter", clock)
    monkeypatch.setattr(tuner.time, "monotonic", clock)
    dtype, sizes, _ = CASES["attention"]
    outcome = tuner.tune(Question("attention", "triton", dtype, sizes, "cpu"), Budget(seconds=60.0))
    # tiles are run twice within four fifths of it, and in the rest two of them twice
    assert outcome.measured == 9
    assert clock() == pytest.approx((2 * 9 + 2 * 2) * 2.7)
    assert (outcome.best.seconds, outcome.best.default_seconds) == pytest.approx((2.7, 2.7))
