"""Validation passes what is right and finds what is wrong."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.kernels.small_tiles import TILES

from towtank.kernels.errors import KernelError
from towtank.kernels.launch import empty, fresh_seed
from towtank.kernels.records import Backend, Kernel, no_cases
from towtank.kernels.registry import kernels
from towtank.kernels.tolerances import tolerance
from towtank.kernels.trials import trials
from towtank.kernels.validate import Verdict, compare, validate

FEW = {
    **dict.fromkeys(("attention", "attention_backward"), 2),
    **dict.fromkeys(("rms_norm", "layer_norm", "rms_norm_backward", "layer_norm_backward"), 3),
    **dict.fromkeys(("matmul", "matmul_dgrad", "matmul_wgrad"), 6),
}
"""Cases of kernels that the interpreter takes long for, where it is to be quick."""


def _brief(kernel: Kernel) -> Kernel:
    """Without the cases that take long."""
    backends = tuple(replace(each, cases=no_cases) for each in kernel.backends)
    return replace(kernel, cases=kernel.cases[: FEW.get(kernel.name, len(kernel.cases))], backends=backends)


def _verdict(kernel: Kernel, backend: str, dtype: str) -> tuple[int, Verdict]:
    tile = TILES.get(kernel.name, {}) if backend == "triton" else {}
    seed = fresh_seed()
    return seed, validate(kernel, kernel.backend(backend), dtype, tile, seed=seed)


def _variants(backend: str, *dtypes: str) -> list[tuple[str, str]]:
    """Kernels with those of some dtypes that they have, and with the only one of a kernel that has one."""
    return [
        (name, dtype)
        for name, kernel in kernels().items()
        for each in kernel.backends
        if each.name == backend
        for dtype in each.dtypes
        if dtype in dtypes or (dtypes[0] == "float32" and len(each.dtypes) == 1)
    ]


@pytest.mark.parametrize(("name", "dtype"), _variants("triton", "float32"))
def test_triton_in_the_interpreter(name: str, dtype: str) -> None:
    kernel = _brief(kernels()[name])
    seed, verdict = _verdict(kernel, "triton", dtype)
    assert verdict.faults == (), f"seed {seed}"
    assert verdict.checks >= 4 * len(kernel.cases)
    assert 0 <= verdict.error <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*TILES, *FEW}))
def test_triton_in_the_interpreter_with_all_cases(name: str) -> None:
    seed, verdict = _verdict(kernels()[name], "triton", kernels()[name].backend("triton").dtypes[0])
    assert verdict.faults == (), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), _variants("triton", "float16", "bfloat16"))
def test_triton_in_the_interpreter_with_16_bits(name: str, dtype: str) -> None:
    seed, verdict = _verdict(_brief(kernels()[name]), "triton", dtype)
    assert verdict.faults == (), f"seed {seed}"


@pytest.mark.parametrize(("name", "dtype"), _variants("library", "float32", "bfloat16", "float64"))
def test_library(name: str, dtype: str) -> None:
    seed, verdict = _verdict(_brief(kernels()[name]), "library", dtype)
    assert verdict.faults == (), f"seed {seed}"
    assert 0 <= verdict.error <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), _variants("library", "float16", "bfloat16", "float32", "float64"))
def test_library_with_all_cases(name: str, dtype: str) -> None:
    seed, verdict = _verdict(kernels()[name], "library", dtype)
    assert verdict.faults == (), f"seed {seed}"


@pytest.mark.parametrize("name", ["matmul", "matmul_dgrad", "matmul_wgrad"])
def test_all_modes_of_the_library(name: str) -> None:
    kernel = kernels()[name]
    backend = kernel.backend("library")
    tiles = backend.tiles(kernel.cases[0], "float32")
    assert len({str(tile) for tile in tiles}) == 8
    assert [tile for tile in tiles if not validate(kernel, backend, "float32", tile, seed=5).passed] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["grouped_matmul", "grouped_matmul_dgrad", "grouped_matmul_wgrad"])
def test_experts_with_equally_many_rows_are_a_batch(name: str, dtype: torch.dtype) -> None:
    kernel = kernels()[name]
    # 8 columns are 16 bytes apart, 5 are not
    for columns in (8, 5):
        sizes = {"experts": 3, "m": 12, "n": columns, "k": columns}
        *operands, _ = kernel.inputs(sizes, dtype, torch.Generator().manual_seed(fresh_seed()))
        inputs = (*operands, torch.tensor([4, 4, 4]))
        (expected,) = kernel.reference([each.double() for each in operands] + [inputs[2]], sizes)
        for tile in kernel.backend("library").tiles(sizes, "float32"):
            (found,) = kernel.backend("library").load()(inputs, sizes, tile, empty("cpu"))
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def _broken(change: Callable[..., object]) -> Kernel:
    """SwiGLU by the library, with `change` applied to what it returns, its inputs and its allocator."""
    kernel = kernels()["swiglu"]
    right = kernel.backend("library").load()

    def launch(inputs, sizes, tile, allocate):
        return change(right(inputs, sizes, tile, allocate), inputs, allocate)

    backend = Backend("library", lambda: launch, ("float32",), lambda device: None)
    return replace(kernel, backends=(backend,))


def _unwritten(outputs, inputs, allocate):
    y = allocate(*outputs[0].shape, dtype=outputs[0].dtype)
    y.view(-1)[:-1] = outputs[0].reshape(-1)[:-1]
    return (y,)


def _changes_input(outputs, inputs, allocate):
    inputs[1][..., 0] += 1
    return outputs


def _reads_as_dense(outputs, inputs, allocate):
    gate, up = (torch.as_strided(each, each.shape, (each.shape[1], 1)) for each in inputs)
    return (torch.nn.functional.silu(gate) * up,)


def _raises(outputs, inputs, allocate):
    raise RuntimeError("out of resources: shared memory")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda outputs, inputs, allocate: (outputs[0] * (1 + 3e-6),), "relative error"),
        (lambda outputs, inputs, allocate: (outputs[0].nan_to_num(),), "finite in one of both only"),
        (lambda outputs, inputs, allocate: (outputs[0][:, :-1],), "shape"),
        (lambda outputs, inputs, allocate: (*outputs, outputs[0]), "2 outputs, but the reference has 1"),
        (_unwritten, "finite in one of both only"),
        (_changes_input, "changes its inputs [1]"),
        (_reads_as_dense, "relative error"),
        (_raises, "RuntimeError: out of resources: shared memory"),
    ],
    ids=["inexact", "hides NaN", "shape", "outputs", "unwritten", "changes input", "strides", "raises"],
)
def test_what_is_wrong_is_found(change: Callable[..., object], text: str) -> None:
    kernel = _broken(change)
    verdict = validate(kernel, kernel.backends[0], "float32", {}, seed=11)
    assert not verdict.passed
    assert any(text in fault.text for fault in verdict.faults)


def _swiglu_by(change: Callable[..., object]) -> Verdict:
    kernel = _broken(change)
    return validate(kernel, kernel.backends[0], "float32", {}, seed=11)


def _beside_its_output(outputs, inputs, allocate):
    y = allocate(*outputs[0].shape, dtype=outputs[0].dtype)
    y.copy_(outputs[0])
    y.as_strided((1,), (1,), y.storage_offset() + y.numel()).fill_(1.0)
    return (y,)


def _beside_its_input(outputs, inputs, allocate):
    up = inputs[1]
    if up.numel() and up.storage_offset():  # a slice of something wider
        up.as_strided((1,), (1,), up.storage_offset() - 1).fill_(1.0)
    return outputs


def test_writes_beside_outputs_and_inputs_are_found() -> None:
    beside = _swiglu_by(_beside_its_output)
    assert {fault.text for fault in beside.faults} == {"writes outside of its outputs"}
    assert len(beside.faults) == beside.checks
    gaps = _swiglu_by(_beside_its_input)
    assert {fault.text for fault in gaps.faults} == {"changes its inputs [1]"}
    assert all(fault.case.endswith("slices of wider inputs") for fault in gaps.faults)


def test_every_input_has_a_nan_and_every_layout_is_tried() -> None:
    tried: dict[str, set[tuple[int, ...]]] = {}
    kernel = kernels()["swiglu"]
    for trial in trials(kernel, {"rows": 5, "columns": 33}, "float32", "cpu", 3):
        x = trial.inputs[1]
        assert x.shape == (5, 33)
        tried.setdefault(trial.name, set()).add(x.stride())
        assert bool(x.isfinite().all()) == (trial.touched != 1)
    assert tried == {
        "inputs as they come": {(33, 1)},
        "strided inputs": {(66, 2)},
        "slices of wider inputs": {(37, 1)},
        "inputs by columns": {(1, 5)},
        **{f"{what} in input {place}": {(33, 1)} for what in ("a NaN", "an infinity") for place in (0, 1)},
    }


def test_an_element_by_itself_and_infinities_with_their_sign() -> None:
    one, other = torch.tensor([448.0, 0.5]), torch.tensor([448.0, 0.25], dtype=torch.float64)
    assert compare([one], [other], 1, by_element=(0,))[1] is not None
    eight = one.to(torch.float8_e4m3fn)
    # beside 448 a difference of 0.25 is nothing, beside 0.25 it is all
    assert compare([eight], [other], 1)[1] is None
    assert (
        compare([eight], [other], 1, by_element=(0,))[1]
        == "output 0: an element is off by 14.9 times what is allowed"
    )
    infinite = torch.tensor([float("inf")])
    assert compare([infinite], [infinite.double()], 1)[1] is None
    assert (
        compare([-infinite], [infinite.double()], 1)[1] == "output 0: 1 of 1 infinities have the other sign"
    )


def test_seeds_draw_other_numbers() -> None:
    kernel = kernels()["rms_norm"]
    errors = {
        validate(kernel, kernel.backend("library"), "float16", {}, seed=seed).error for seed in range(4)
    }
    assert len(errors) > 1


def test_relative_error_by_hand() -> None:
    # largest value 4, largest difference 0.002: 5e-4 of the scale
    found, expected = torch.tensor([4.0, 1.002]), torch.tensor([4.0, 1.0], dtype=torch.float64)
    ratio, fault = compare([found], [expected], 1)
    assert ratio == pytest.approx(5e-4 / tolerance("float32", 1), rel=1e-3)
    assert fault is not None
    # the same difference between terms of 8,000 is rounding
    assert compare([found], [expected], 1, terms=(8000.0,))[1] is None


def test_a_nan_may_spread_only_where_a_kernel_says_so() -> None:
    found, expected = torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert compare([found], [expected], 1)[1] is not None
    assert compare([found], [expected], 1, spreads=True)[1] is None
    assert compare([torch.tensor([1.0, 2.0])], [found.double()], 1, spreads=True)[1] is not None


@pytest.mark.parametrize("name", ["attention", "attention_backward", "cross_entropy"])
def test_an_element_that_is_not_written_is_found_where_a_nan_may_spread(name: str) -> None:
    kernel = kernels()[name]
    right = kernel.backend("library").load()

    def launch(inputs, sizes, tile, allocate):
        *others, last = right(inputs, sizes, tile, allocate)
        poisoned = allocate(*last.shape, dtype=last.dtype)
        poisoned.view(-1)[1:] = last.reshape(-1)[1:]
        return (*others, poisoned)

    outputs = kernel.backend("library").outputs
    backend = Backend("library", lambda: launch, ("float32",), lambda device: None, outputs=outputs)
    verdict = validate(kernel, backend, "float32", {}, seed=3)
    ordinary = [fault for fault in verdict.faults if fault.case.endswith("inputs as they come")]
    # but for cases that have no elements
    assert len(ordinary) == sum(0 not in (case.get("rows"), case.get("batch")) for case in kernel.cases)
    assert all("finite in one of both only" in fault.text for fault in ordinary)


def test_a_gpu_that_a_kernel_has_lost_is_not_blamed_on_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    kernel = kernels()["gelu"]
    with pytest.raises(
        KernelError, match=r"gelu by library cannot be tried.*\(CUDA error: an illegal .*tered\)"
    ):
        validate(kernel, kernel.backend("library"), "float32", {}, device="cuda")


def test_integers_are_exact() -> None:
    assert compare([torch.tensor([1, 2])], [torch.tensor([1, 2])], 1) == (0.0, None)
    assert compare([torch.tensor([1, 3])], [torch.tensor([1, 2])], 1)[1] == "output 0: 1 of 2 integers differ"


def test_eight_bits_round_as_torch_does() -> None:
    from towtank.kernels.triton_code import fp8_cast
    from towtank.kernels.validate import poisoned

    x = torch.randn(1, 4096) * torch.logspace(-8, 2, 4096)
    x[0, 0] = 448.0  # so that the scale is 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        q, scale = fp8_cast.LAUNCHERS["fp8_cast"]((x,), {"group": 4096}, {}, poisoned("cpu"))
    assert float(scale) == 1.0
    assert torch.equal(q.view(torch.uint8), x.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8))


def test_an_update_of_adamw_that_cancels_the_weight_is_judged_by_the_weight() -> None:
    kernel, sizes = kernels()["adamw"], {"elements": 1, "step": 9}
    inputs = kernel.inputs(sizes, torch.float32, torch.Generator().manual_seed(1))
    weight = abs(float(inputs[1]))
    terms = kernel.terms(inputs, sizes)
    assert (terms[0], terms[3]) == (weight, weight)
