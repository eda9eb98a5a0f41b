"""Samples from steps, and that a calibration of made-up steps gives those steps back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.hardware_profiles.calibrated.examples import calibration

from towtank.executor.calibrate.fit import Sample
from towtank.executor.calibrate.from_steps import (
    CollectiveSample,
    MeasuredRun,
    collective_samples,
    kernel_samples,
    load_in,
    with_waits,
)
from towtank.executor.calibrate.measurements import read_measurements, write_measurements
from towtank.executor.calibrate.pairs import load_pairs
from towtank.executor.calibrate.points import kernel_points, sweep_of
from towtank.executor.calibrate.pool import CalibrationError
from towtank.executor.calibrate.refit import (
    fitted,
    judged,
    process_bytes,
    refit,
    tensors_bytes,
    with_steps,
)
from towtank.executor.calibrate.sweep import Swept
from towtank.executor.errors import RecordError
from towtank.executor.measured.run_record import MachineFacts, RunFacts, RunRecord, write_run_record
from towtank.hardware_profiles.calibrated.machine import machine_of
from towtank.hardware_profiles.calibrated.read import ENVIRONMENT, read_calibration, write_calibration
from towtank.hardware_profiles.calibrated.records import CollectiveTimes
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_to_mapping
from towtank.simulator.predict import predict
from towtank.simulator.record import OperationTime, StepRecord
from towtank.simulator.stacks.load import load_stack

STACK = load_stack("towtank-executor")
MODEL = load_model("tiny-llama")


def made_up(plan: Plan, *, factor: float = 1.0) -> MeasuredRun:
    """A step that took `factor` times what the example calibration predicts, and 10 MiB besides tensors."""
    record = predict(MODEL, machine_of(calibration()), plan, stack=STACK).record()
    operations = [
        replace(each, seconds=each.seconds * factor, exposed_s=each.exposed_s * factor)
        for each in record.operations
    ]
    ends = {name: record.breakdown_s[name] * factor for name in ("optimizer", "gradient norm")}
    operations += [OperationTime(name, name, "optimizer", seconds, seconds) for name, seconds in ends.items()]
    step = StepRecord("measured", record.step_time_s * factor, {}, tuple(operations))
    threads = 2 if plan.num_devices == 1 else 1
    run = MeasuredRun(MODEL, plan, STACK, step, "fp32", threads)
    return replace(run, step=replace(step, peak_memory_bytes=tensors_bytes(run) + 10 * 2.0**20))


DATA = Plan(data=2, global_batch=4, micro_batch=2, precision="fp32")
TENSOR = Plan(tensor_x=2, tensor_y=2, global_batch=2, precision="fp32")


@pytest.mark.parametrize(
    ("plan", "load"),
    [
        (DATA, 2),
        (TENSOR, 4),
        (Plan(pipeline=2, global_batch=1), 1),
        (Plan(pipeline=2, global_batch=2), None),
        (Plan(pipeline=2, data=2, global_batch=2), None),
    ],
)
def test_only_steps_of_constant_load_are_sampled(plan: Plan, load: int | None) -> None:
    run = MeasuredRun(MODEL, plan, STACK, StepRecord("measured", 1.0, {}), "fp32", 1)
    assert load_in(run) == load


def test_samples_of_a_step_are_the_times_of_its_kernels() -> None:
    samples = kernel_samples(made_up(DATA))
    down = [each for each in samples if each.kernel == "matmul.wgrad"]
    assert len(down) == 4 * MODEL.num_layers + 1  # qkv, output, up, down of every layer, and the head
    for each in down:  # 2e-6 a launch, 2e-11 a FLOP, and nothing else in the example
        assert each.seconds == pytest.approx(2e-6 + 2e-11 * each.features["flop"])


def test_time_under_no_name_is_shared_by_all_calls() -> None:
    run = made_up(DATA)
    unnamed = OperationTime("unnamed", "unnamed", "forward", 1.0, 1.0)
    step = replace(run.step, operations=(*run.step.operations, unnamed))
    plain, more = kernel_samples(run), kernel_samples(replace(run, step=step))
    late = {
        round(b.seconds - a.seconds, 9) for a, b in zip(plain, more, strict=True) if a.kernel != "optimizer"
    }
    calls = len([each for each in run.step.operations if each.name not in ("optimizer", "gradient norm")])
    assert late == {round(1.0 / calls, 9), 0.0}  # the gradient norm is no call of the passes


def test_members_of_a_group_wait_for_each_other() -> None:
    found = collective_samples(made_up(TENSOR))
    assert {(each.collective, each.size, each.processes) for each in found} == {
        ("all-reduce", 2, 4),
        ("all-reduce", 4, 4),
        ("all-gather", 2, 4),
    }
    tables = (CollectiveTimes("all-reduce", 2, 4, (1.0, 100.0), (1.0, 1.0)),)
    late = [CollectiveSample("all-reduce", 2, 4, 10.0, seconds) for seconds in (1.5, 1.25, 9.0)]
    assert with_waits(tables, late)[0].seconds == (1.5, 1.5)
    assert with_waits(tables, [replace(each, seconds=0.5) for each in late])[0].seconds == (1.0, 1.0)


def test_fitted_to_slow_steps_it_predicts_slow_steps() -> None:
    runs = [made_up(plan, factor=1.5) for plan in (DATA, TENSOR, Plan(global_batch=2, precision="fp32"))]
    base = calibration()
    copies = tuple(
        Sample("elementwise", "fp32", threads, processes, {"launch": 1.0, "bytes": 1e6}, 1e-4)
        for threads, processes in ((2, 1), (1, 1), (1, 2), (1, 4))
    )
    swept = Swept(copies, base.collectives)
    swept = with_steps(swept, runs)
    found = fitted(base, swept, runs, process_bytes(runs))
    assert found.process_bytes == pytest.approx(10 * 2.0**20)
    assert found.steps is not None
    assert found.steps.samples == 3
    assert found.steps.p90 < 0.1


def test_steps_are_judged_by_what_is_predicted() -> None:
    residual = judged(calibration(), [made_up(DATA), made_up(TENSOR, factor=2.0)])
    assert residual is not None
    assert residual.median == pytest.approx(0.25)  # 0 and 0.5


def test_measurements_are_kept_beside_the_calibration(tmp_path: Path) -> None:
    samples = tuple(kernel_samples(made_up(DATA)))
    swept = Swept((), calibration().collectives, samples, tuple(collective_samples(made_up(TENSOR))))
    path = tmp_path / "local.measurements.csv"
    write_measurements(path, swept)
    again = read_measurements(path)
    assert again.collectives == swept.collectives
    assert [each.kernel for each in again.steps] == [each.kernel for each in samples]
    assert again.steps[0].seconds == pytest.approx(samples[0].seconds, rel=1e-4)
    assert len(again.waited) == len(swept.waited)


def record_of(**changes: Any) -> RunRecord:
    """A record of `towtank run` that the example calibration (2 cores; 1, 2 and 4 processes) can be fitted to."""
    machine = MachineFacts("ab", "Test Processor", 2, 2**34)
    facts = RunFacts(2, "cpu", "fp32", 1, 0, 5, 1, 512)
    given: dict[str, Any] = {
        "model": "tiny-llama", "stack": "towtank-executor", "run": facts, "machine": machine,
        "plan": plan_to_mapping(DATA),
    }  # fmt: skip
    step = replace(made_up(DATA, factor=1.5).step, breakdown_s={"matmul": 1.0})
    return RunRecord(1, "0", "towtank", step, **{**given, **changes})


def test_records_of_real_steps_are_fitted_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    base = calibration("lab")
    write_calibration(tmp_path / "lab.yaml", base, "")
    sizes = ({"launch": 1.0, "flop": flop, "bytes": 1e5} for flop in (1e5, 1e8))
    sweeps = tuple(
        Sample(fit.kernel, fit.precision, fit.threads, fit.processes, each, fit.seconds(each))
        for each in sizes
        for fit in base.kernels
    )
    write_measurements(tmp_path / "lab.measurements.csv", Swept(sweeps, base.collectives))
    write_run_record(record_of(), tmp_path / "r.json")
    found, path = refit("lab", [tmp_path / "r.json"])
    written = read_calibration(path).steps
    assert path == tmp_path / "lab.yaml"
    assert found.steps is not None and written is not None
    assert (found.steps.samples, written.samples) == (1, 1)
    assert written.median == pytest.approx(found.steps.median, rel=1e-3)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lab.measurements.csv", "lab.yaml", "r.json"]


def test_records_of_something_else_are_refused_with_all_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    write_calibration(tmp_path / "lab.yaml", calibration("lab"), "")
    write_measurements(tmp_path / "lab.measurements.csv", Swept((), calibration().collectives))
    other = MachineFacts("cd", "Another Processor", 64, 2**34, nodes=2)
    write_run_record(
        record_of(machine=other, run=RunFacts(8, "cpu", "float64", 3, 0, 5, 1, 512)), tmp_path / "r.json"
    )
    write_run_record(record_of(plan=None), tmp_path / "s.json")
    with pytest.raises(RecordError) as refused:
        refit("lab", [tmp_path / "r.json", tmp_path / "s.json"])
    for told in (
        "r.json: was measured on Another Processor (cpu), but lab is of Test Processor (cpu)",
        "is of 2 nodes",
        "is of 8 processes, but lab was measured with 1, 2, 4; run `towtank calibrate --out lab --processes 8` first",
        "has 3 threads a process, but 8 processes are predicted with 1",
        "was run with --dtype float64, but its plan's precision is fp32",
        "s.json: names no model, plan and stack",
    ):
        assert told in str(refused.value)


@pytest.mark.parametrize("text", [None, "nonsense\n1\n", "kind,name\nkernel,x\n"])
def test_other_files_are_no_measurements(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "x.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CalibrationError, match="towtank calibrate") as caught:
        read_measurements(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["probes", "experiment"])
def test_pairs_can_run(name: str) -> None:
    from towtank.executor import supported
    from towtank.simulator.plan_rules import faults_of

    machine = machine_of(calibration())
    for pair in load_pairs(name):
        assert faults_of(pair.model, machine, pair.plan, pair.stack) == []
        assert supported.faults(pair.settings()) == []


def test_the_experiment_predicts_what_no_calibration_has_seen() -> None:
    seen, held = load_pairs("probes"), load_pairs("experiment")
    assert not {pair.model.name for pair in seen} & {pair.model.name for pair in held}
    assert not {pair.model.hidden for pair in seen} & {pair.model.hidden for pair in held}
    assert len(held) == 12
    assert {pair.plan.num_devices for pair in held} == {1, 2, 4}


def test_sweeps_measure_every_kernel_that_a_prediction_asks_for() -> None:
    measured = {point.kernel for point in kernel_points(sweep_of("cpu", "quick"), "fp32")}
    asked = {sample.kernel for pair in load_pairs("experiment") for sample in _asked(pair)}
    assert asked <= measured


def _asked(pair):  # type: ignore[no-untyped-def]
    from towtank.executor.calibrate.from_steps import works_of
    from towtank.simulator.cost.calibrated import kernel_of
    from towtank.simulator.operations import Message
    from towtank.simulator.program import lower

    works = works_of(lower(pair.model, pair.plan, pair.stack)).values()
    return [type("Asked", (), {"kernel": kernel_of(work)}) for work in works if not isinstance(work, Message)]
