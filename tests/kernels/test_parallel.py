"""Variants validated by several processes come back as they do from one."""

from pathlib import Path

import pytest

from towtank.kernels import launch
from towtank.kernels.parallel import Variant, prove_tiles, usual_jobs, verdicts
from towtank.kernels.registry import kernels


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path))
    monkeypatch.setattr(launch, "_PASSED", set())


@pytest.mark.slow
def test_two_processes_find_what_one_does() -> None:
    variants = [Variant(name, "library", "float32", {}) for name in ("gelu", "swiglu", "rotary")]
    one, two = (list(verdicts(variants, "cpu", 5, jobs)) for jobs in (1, 2))
    assert [each.kernel for each in two] == ["gelu", "swiglu", "rotary"]
    assert [(each.error, each.checks) for each in one] == [(each.error, each.checks) for each in two]


def test_only_what_has_not_passed_is_tried() -> None:
    kernel = kernels()["matmul"]
    backend = kernel.backend("library")
    tiles = backend.tiles(kernel.cases[0], "float32")[:2]
    launch.require(kernel, backend, "float32", tiles[0], "cpu")
    (before,) = launch.recorded("cpu")
    prove_tiles(kernel, backend, "float32", tiles, "cpu", 1)
    tried = {str(each.tile): each.seed != before.seed for each in launch.recorded("cpu")}
    assert tried == {str(tiles[0]): False, str(tiles[1]): True}


def test_a_cpu_is_not_shared() -> None:
    assert usual_jobs("cpu") == 1
    assert 1 <= usual_jobs("cuda") <= 12
