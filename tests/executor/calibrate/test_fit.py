import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.executor.calibrate.fit import Sample, fit_kernels, levelled, non_negative_terms

SIZES = [(1.0, 1e3), (1.0, 1e5), (1.0, 1e7), (2.0, 1e6)]


def _samples(launch: float, each: float, *, noise: float = 0.0, kernel: str = "norm.forward") -> list[Sample]:
    return [
        Sample(
            kernel, "fp32", 1, 1, {"launch": n, "bytes": b}, (n * launch + b * each) * (1 + noise * (-1) ** i)
        )
        for i, (n, b) in enumerate(SIZES)
    ]


@given(launch=st.floats(1e-7, 1e-4), each=st.floats(1e-12, 1e-9))
@settings(max_examples=25, deadline=None)
def test_exact_times_give_back_their_terms(launch: float, each: float) -> None:
    (fit,) = fit_kernels(_samples(launch, each))
    assert fit.terms["launch"] == pytest.approx(launch, rel=1e-3, abs=1e-12)
    assert fit.terms["bytes"] == pytest.approx(each, rel=1e-3)
    assert fit.residual.p90 < 1e-3


def test_terms_are_never_negative_and_carry_an_interval() -> None:
    (fit,) = fit_kernels(_samples(0.0, 1e-10, noise=0.1))
    assert all(value >= 0 for value in fit.terms.values())
    low, high = fit.intervals_90["bytes"]
    assert low <= fit.terms["bytes"] <= high
    assert 0.01 < fit.residual.median < 0.2


def test_one_disturbed_sample_moves_the_fit_little() -> None:
    features = np.array([[1.0, 10.0 ** (k / 4)] for k in range(12)])
    seconds = features @ np.array([1.0, 1.0])
    seconds[6] *= 10  # somebody else had the machine
    terms, _ = non_negative_terms(features, seconds, np.ones(12))
    assert terms == pytest.approx([1.0, 1.0], rel=0.1)


def test_a_feature_that_no_sample_has_gets_no_term() -> None:
    samples = [Sample("norm.forward", "fp32", 1, 1, {"launch": 1.0, "streamed": 0.0}, 1e-6)]
    (fit,) = fit_kernels(samples)
    assert set(fit.terms) == {"launch"}


def test_kernels_precisions_threads_and_processes_are_fitted_apart() -> None:
    one = Sample("norm.forward", "fp32", 1, 1, {"launch": 1.0}, 1e-6)
    others = [
        Sample("norm.forward", "fp32", 1, 2, {"launch": 1.0}, 2e-6),
        Sample("norm.forward", "fp32", 2, 1, {"launch": 1.0}, 3e-6),
        Sample("norm.forward", "bf16", 1, 1, {"launch": 1.0}, 4e-6),
        Sample("rope.forward", "fp32", 1, 1, {"launch": 1.0}, 5e-6),
    ]
    found = sorted(fit.terms["launch"] for fit in fit_kernels([one, *others]))
    assert found == pytest.approx([1e-6, 2e-6, 3e-6, 4e-6, 5e-6])


def test_sweeps_come_to_the_level_of_steps() -> None:
    sweeps = _samples(1e-6, 1e-10)
    steps = [Sample("norm.forward", "fp32", 1, 1, {"launch": 1.0, "bytes": 1e6}, 3 * (1e-6 + 1e-4), 4.0)]
    (fit,) = fit_kernels(levelled(sweeps, steps))
    assert fit.terms["bytes"] == pytest.approx(3e-10, rel=0.02)


def test_sweeps_without_steps_stay_as_they_are() -> None:
    assert levelled(_samples(1e-6, 1e-10), []) == _samples(1e-6, 1e-10)
