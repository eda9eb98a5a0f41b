"""Real processes that measure together."""

import threading

import pytest

from towtank.executor.calibrate.pairs import load_pairs
from towtank.executor.calibrate.points import CollectivePoint, collective_points, kernel_points, sweep_of
from towtank.executor.calibrate.pool import CalibrationError, Order, Pool


def test_collectives_are_measured_alone_and_beside_others() -> None:
    points = collective_points(sweep_of("cpu", "quick"), (1, 2, 4))
    assert {(each.size, each.processes) for each in points} == {(2, 2), (2, 4), (4, 4)}
    assert not [each for each in points if each.collective == "send" and each.size > 2]


def test_groups_side_by_side_need_a_number_of_processes_that_they_divide() -> None:
    points = collective_points(sweep_of("cpu", "quick"), (1, 2, 3, 4, 6))
    assert {(each.size, each.processes) for each in points} == {
        (2, 2),
        (3, 3),
        (2, 4),
        (4, 4),
        (2, 6),
        (3, 6),
        (6, 6),
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_kernel_point_can_be_called(precision: str) -> None:
    from towtank.executor.calibrate.calls import kernel_call

    seen = set()
    for point in kernel_points(sweep_of("cpu", "quick"), precision):
        if point.kernel not in seen:  # the first of each kernel is its smallest
            seen.add(point.kernel)
            kernel_call(point, "cpu")()
    assert {"matmul.wgrad", "attention.backward", "rope.backward", "optimizer"} <= seen


@pytest.mark.slow
def test_processes_measure_and_train() -> None:
    kernels = tuple(kernel_points(sweep_of("cpu", "quick"), "fp32")[:3])
    messages = tuple(CollectivePoint(each, 2, 2, 4096) for each in ("all-reduce", "reduce-scatter", "send"))
    pair = next(pair for pair in load_pairs("probes") if pair.plan.num_devices == 2)
    with Pool((1, 2, 3), "cpu") as pool:  # a plan of two of three: the group of three is made anew
        found = pool.train(pair.settings(), 1, 1, 1)
        alone = pool.measure(Order(kernels, 1, 1, 0.001, 1))
        together = pool.measure(Order((*kernels, *messages), 1, 2, 0.001, 1))
        three = pool.measure(Order((CollectivePoint("all-reduce", 3, 3, 4096),), 1, 3, 0.001, 1))
    assert found.step.step_time_s > 0
    assert found.step.peak_memory_bytes is not None
    assert len(alone) == 3
    assert len(together) == 6
    assert min([*alone, *together, *three]) > 0


@pytest.mark.slow
def test_a_fault_of_a_worker_is_told() -> None:
    wrong = CollectivePoint("gossip", 1, 1, 64)
    with Pool((1,), "cpu") as pool, pytest.raises(CalibrationError, match="process 0: KeyError"):
        pool.measure(Order((wrong,), 1, 1, 0.001, 1))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_named() -> None:
    pair = next(pair for pair in load_pairs("probes") if pair.plan.num_devices == 2)
    with Pool((2,), "cpu") as pool:
        process = pool._processes[1]
        threading.Timer(2.0, process.kill).start()
        with pytest.raises(CalibrationError, match="process 1 was ended by signal SIGKILL"):
            pool.train(pair.settings(), 1, 100_000, 0)
    assert not any(each.is_alive() for each in pool._processes)
