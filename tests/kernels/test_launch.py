"""A kernel is used only where it has been proven right."""

import json
from pathlib import Path

import pytest
import torch

from towtank.kernels import launch
from towtank.kernels.errors import KernelError
from towtank.kernels.registry import kernels
from towtank.kernels.validate import Fault, Verdict

SIZES = {"rows": 3, "columns": 5}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path))
    monkeypatch.setattr(launch, "_PASSED", set())


def _gelu() -> torch.Tensor:
    x = torch.tensor([[0.0, 1.0, -1.0, 2.0, -2.0]] * 3)
    return launch.launch("gelu", [x], SIZES)[0]


def test_the_first_launch_validates_and_records() -> None:
    assert launch.recorded("cpu") == []
    # x times the normal distribution function, which the hyperbolic tangent approximates to 1e-3
    assert _gelu()[0].tolist() == pytest.approx([0, 0.8413, -0.1587, 1.9545, -0.0455], abs=1e-3)
    (entry,) = launch.recorded("cpu")
    assert (entry.kernel, entry.backend, entry.dtype, entry.passed) == ("gelu", "library", "float32", True)
    assert entry.error is not None
    assert entry.error <= 1


def test_what_is_not_validated_is_refused_where_asked() -> None:
    x = torch.ones(3, 5)
    with pytest.raises(KernelError, match="towtank kernels validate --kernel gelu --backend library"):
        launch.launch("gelu", [x], SIZES, unproven="refuse")
    _gelu()
    assert launch.launch("gelu", [x], SIZES, unproven="refuse")[0].shape == (3, 5)
    # another dtype is another variant
    with pytest.raises(KernelError, match="bfloat16"):
        launch.launch("gelu", [x.bfloat16()], SIZES, unproven="refuse")


def test_what_failed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Verdict("gelu", "library", "float32", {}, 1, float("inf"), (Fault("rows=1", "shape (1,)"),))
    monkeypatch.setattr(launch, "validate", lambda *_, **__: fault)
    with pytest.raises(KernelError, match=r"rows=1 \(seed \d+\): shape \(1,\)"):
        _gelu()
    (entry,) = launch.recorded("cpu")
    assert (entry.passed, entry.error) == (False, None)


@pytest.mark.parametrize("what", ["source_version", "software"])
def test_a_record_holds_for_its_source_and_software(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _gelu()
    monkeypatch.setattr(launch, what, lambda *_: "another")
    assert launch.recorded("cpu") == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 0, "entries": {}}', '{"version": 1}'])
def test_a_broken_record_is_started_again(text: str, tmp_path: Path) -> None:
    (tmp_path / launch.RECORD).write_text(text)
    _gelu()
    assert len(launch.recorded("cpu")) == 1


def _edited(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text())
    for here in document["entries"].values():
        for entry in here["variants"].values():
            entry.update(changes)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": True, "fault": ""},
        {"kernel": "swiglu"},
        {"tile": {"warps": 4}},
        {"digest": ""},
        {"more": 1},
    ],
)
def test_a_record_that_was_edited_is_not_believed(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Verdict("gelu", "library", "float32", {}, 1, 0.5, (Fault("rows=1", "shape (1,)"),))
    launch.record(fault, "cpu", 1)
    assert [each.passed for each in launch.recorded("cpu")] == [False]
    _edited(tmp_path / launch.RECORD, **changes)
    assert launch.recorded("cpu") == []
    x = torch.ones(3, 5)
    with pytest.raises(KernelError, match="has not passed validation"):
        launch.launch("gelu", [x], SIZES, unproven="refuse")


@pytest.mark.parametrize("variants", [[], {"a": 1}, {"a": {}}, None])
def test_a_record_of_another_form_is_started_again(variants: object, tmp_path: Path) -> None:
    _gelu()
    document = json.loads((tmp_path / launch.RECORD).read_text())
    for here in document["entries"].values():
        here["variants"] = variants
    (tmp_path / launch.RECORD).write_text(json.dumps(document))
    launch._PASSED.clear()
    assert launch.recorded("cpu") == []
    _gelu()
    assert len(launch.recorded("cpu")) == 1


def test_code_of_another_compiler_is_another_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Verdict("matmul", "c", "float32", {"mr": 6}, 1, 0.5, ())
    launch.record(right, "cpu", 1)
    assert launch.has_passed("matmul", "c", "float32", {"mr": 6}, "cpu")
    monkeypatch.setattr(launch, "_build", lambda backend: "another cc")
    assert not launch.has_passed("matmul", "c", "float32", {"mr": 6}, "cpu")
    assert launch.recorded("cpu") == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("gelo", "library"), "no kernel is named 'gelo'"),
        (("gelu", "c"), "has no backend 'c'; it has library, triton"),
    ],
)
def test_wrong_names(arguments: tuple[str, str], text: str) -> None:
    with pytest.raises(KernelError, match=text):
        launch.find(*arguments, "cpu")


def test_every_kernel_is_well_described() -> None:
    for name, kernel in kernels().items():
        assert name == kernel.name
        for case in kernel.cases:
            sizes = {**kernel.options, **case}
            assert set(kernel.dimensions) <= set(sizes), name
            cost = kernel.cost(sizes, "bfloat16")
            assert cost.flop >= 0
            assert cost.bytes >= 0
        assert [backend.name for backend in kernel.backends][:1] == ["library"]
