"""`towtank kernels list` and `validate`."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from towtank.kernels import launch

    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path))
    monkeypatch.setattr(launch, "_PASSED", set())


def _states(towtank: Callable[..., Any]) -> dict[tuple[str, str], str]:
    rows = json.loads(towtank("kernels", "list", "--device", "cpu", "--json").out)["kernels"]
    return {(row["kernel"], row["backend"]): row["state"] for row in rows}


def test_validate_shows_in_the_list(towtank: Callable[..., Any]) -> None:
    before = _states(towtank)
    assert before["swiglu", "library"] == "not validated"
    assert len(before) >= 40
    call = ("kernels", "validate", "--kernel", "swiglu", "--backend", "library", "--device", "cpu", "--json")
    done = json.loads(towtank(*call, "--dtype", "bf16", "--seed", "7").out)
    assert done["seed"] == 7
    assert [(each["dtype"], each["passed"]) for each in done["variants"]] == [("bfloat16", True)]
    assert _states(towtank)["swiglu", "library"] == "validated in part"
    first, second = (json.loads(towtank(*call).out) for _ in range(2))
    assert first["seed"] != second["seed"]  # fresh numbers each time
    assert _states(towtank)["swiglu", "library"] == "validated"


def test_a_wrong_kernel_is_printed_and_ends_with_1(
    towtank: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from towtank.kernels import parallel
    from towtank.kernels.validate import Fault, Verdict

    def wrong(kernel, backend, dtype, tile, **_):
        return Verdict(
            kernel.name, backend.name, dtype, tile, 4, float("inf"), (Fault("rows=5", "shape (4,)"),)
        )

    monkeypatch.setattr(parallel, "validate", wrong)
    done = towtank("kernels", "validate", "--kernel", "gelu", "--backend", "library", "--dtype", "fp32")
    assert done.code == 1
    assert "0 of 1 variant passed" in done.out
    assert "rows=5: shape (4,)" in done.out
    assert "failed: fp32: rows=5: shape (4,)" in " ".join(towtank("kernels", "list").out.split())


def test_a_tile_that_failed_beside_one_that_passed_is_counted(towtank: Callable[..., Any]) -> None:
    from towtank.kernels.launch import record
    from towtank.kernels.validate import Fault, Verdict

    for swap, faults in ((0, ()), (1, (Fault("m=1", "out of resources"),))):
        record(Verdict("matmul_dgrad", "library", "float32", {"swap": swap}, 4, 0.5, faults), "cpu", 1)
    rows = json.loads(towtank("kernels", "list", "--device", "cpu", "--json").out)["kernels"]
    (row,) = [each for each in rows if (each["kernel"], each["backend"]) == ("matmul_dgrad", "library")]
    assert row["state"] == "validated in part"
    assert row["status"] == "validated: fp32; not fp16 bf16 fp64; 1 tile failed and not used"


def test_wrong_names_are_told_together(towtank: Callable[..., Any]) -> None:
    done = towtank("kernels", "validate", "--kernel", "matmull", "--backend", "trit", "--dtype", "fp7")
    assert done.code == 2
    for part in (
        "did you mean 'matmul'",
        "no backend is named 'trit'",
        "--dtype is fp32, fp16, bf16, fp64, fp8, got 'fp7'",
    ):
        assert part in done.err
    assert towtank("kernels", "list", "--device", "tpu").code == 2


def test_a_precision_that_no_kernel_asked_for_has_is_said(towtank: Callable[..., Any]) -> None:
    done = towtank("kernels", "validate", "--kernel", "gelu", "--dtype", "fp8", "--device", "cpu")
    assert done.code == 2
    assert "nothing has the precision fp8: gelu by library has fp32, fp16, bf16, fp64" in done.err
    assert towtank("kernels", "validate", "--seed", str(2**70)).code == 2


def test_without_torch(towtank: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else there(name))
    done = towtank("kernels", "validate", "--device", "cpu")
    assert (done.code, done.err) == (
        2,
        "towtank: torch is not installed; pip install 'towtank[kernels]'\n",
    )
    assert set(_states(towtank).values()) == {"not available"}


def test_a_gpu_that_is_not_there(towtank: Callable[..., Any]) -> None:
    import torch

    done = towtank("kernels", "validate", "--device", "cuda", "--kernel", "gelu", "--backend", "library")
    assert done.code == (0 if torch.cuda.is_available() else 2)
    assert torch.cuda.is_available() or "no GPU that torch can use was found" in done.err


def test_measurements_become_a_profile(towtank: Callable[..., Any], tmp_path: Path) -> None:
    from importlib import resources

    capture = resources.files("towtank.kernels").joinpath("captures/cpu-epyc-2-threads.bench.csv")
    done = towtank("kernels", "profile", str(capture), "--device", "h200", "--out", str(tmp_path / "mine"))
    assert done.code == 0
    assert "h200-141gb now has the curves of AMD EPYC" in done.out
    wrong = towtank("kernels", "profile", str(capture), "--device", "h2000", "--out", str(tmp_path / "mine"))
    assert wrong.code == 2
    assert "h200" in wrong.err


def test_tune_chooses_a_mode(towtank: Callable[..., Any], tmp_path: Path) -> None:
    call = ("kernels", "tune", "--backend", "library", "--device", "cpu", "--budget", "0.1", "--shape")
    done = towtank(*call, "8x16x4", "--out", str(tmp_path / "modes.csv"))
    assert done.code == 0
    assert "m=8 n=16 k=4" in done.out
    assert "Gain over the default" in done.out
    assert len((tmp_path / "modes.csv").read_text().splitlines()) == 10  # notes, names, eight modes
    for shape in ("8x16", "0x1x1", "axbxc"):
        assert towtank(*call, shape).code == 2


def test_bench_wants_a_folder_that_is_there(towtank: Callable[..., Any], tmp_path: Path) -> None:
    done = towtank("kernels", "bench", "--device", "cpu", "--out", str(tmp_path / "no" / "t.csv"))
    assert done.code == 2
    assert "does not exist" in done.err


def test_a_sweep_that_is_broken_off_keeps_what_it_has(
    towtank: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from towtank.kernels import bench

    def measured(point, device, backend, budget_s, rows=[]):  # noqa: B006 - counts calls
        if len(rows) == 2:
            raise KeyboardInterrupt
        rows.append(point)
        figures = (1e-3, 1e-3, 3, 0.0, 2.0, device, "here", "torch", "2026-01-01")
        return bench.Measurement(point.kind, point.kernel, backend, point.dtype, "elements=1", "", *figures)

    monkeypatch.setattr(bench, "_measured", measured)
    out = tmp_path / "t.csv"
    done = towtank("kernels", "bench", "--quick", "--device", "cpu", "--out", str(out))
    assert done.code == 130
    assert "Broken off: 2 of 122 measurements" in done.out
    assert len(out.read_text().splitlines()) == 3


def test_a_backend_is_compared_with_the_library(towtank: Callable[..., Any]) -> None:
    call = ("kernels", "compare", "--device", "cpu", "--backend", "library")
    done = towtank(*call, "--kernel", "gelu", "--shape", "8x16", "--json")
    found = json.loads(done.out)
    assert found["schema"] == 1
    (row,) = found["comparisons"]
    assert (row["kernel"], row["sizes"], row["library"]) == ("gelu", "rows=8 columns=16", "library")
    assert row["speed"] == pytest.approx(row["library_seconds"] / row["seconds"])
    for wrong, text in (
        (("--shape", "8x8"), "name it with --kernel"),
        (("--kernel", "gelu"), "give a --shape"),
        (("--kernel", "gelu", "--shape", "8"), "--shape of gelu is rows x columns"),
        (
            ("--kernel", "attention", "--shape", "1x8x3x2x4"),
            "heads must be a multiple of kv_heads, got 3 and 2",
        ),
        (("--kernel", "rotary", "--shape", "1x2x2x3"), "head_dim must be even"),
        (("--kernel", "moe_permute", "--shape", "4x8x2x3"), "a token chooses 2 experts at most, got 3"),
    ):
        done = towtank(*call, *wrong)
        assert done.code == 2
        assert text in done.err


def test_a_gpu_that_is_not_there_is_a_status(
    towtank: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = towtank("kernels", "list", "--device", "cuda", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["schema"] == 1
    rows = found["kernels"]
    assert {row["state"] for row in rows} == {"not available"}
    assert {row["reason"] for row in rows if row["backend"] == "library"} == {
        "no GPU that torch can use was found"
    }
