"""A prediction as a person likes to read it: the answer first, then where the time and the memory go."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from towtank.cli.text import bar, count, gibibytes, paragraph, percent, seconds, significant, table

if TYPE_CHECKING:
    from towtank.simulator.plan import Plan
    from towtank.simulator.predict import Prediction
    from towtank.simulator.record import OperationTime
    from towtank.validation.intervals import Interval

Printer = Callable[[float], str]
_BAR = 40
_SMALLEST_PART = 0.0005
"""Rows below this share of the whole are summed up: they would print as 0.0 %."""


def prediction_text(prediction: "Prediction", detail: Literal["layers", "operations"] | None) -> str:
    """The whole report, without colour, at most 100 columns wide."""
    from towtank.simulator.report.caveats import caveats
    from towtank.validation.intervals import attach_interval

    interval = attach_interval(prediction)
    sections = [
        _headline(prediction),
        _totals(prediction, interval),
        f"Where the step goes (mean over {_stages(prediction)})\n{_parts(prediction.breakdown_s, seconds)}",
        f"Memory of stage {prediction.peak_stage.stage}, the fullest\n"
        f"{_parts(prediction.peak_stage.parts, gibibytes)}",
    ]
    if detail is not None:
        sections.append(_detail(prediction, detail))
    stands_on = [*prediction.provenance, f"interval: {interval.rows} {interval.runs}, {interval.regime}"]
    sections.append("Stands on\n" + "\n".join(paragraph(f"- {line}") for line in stands_on))
    if warnings := [*(f"extrapolated: {reason}" for reason in interval.extrapolated), *caveats(prediction)]:
        sections.append("Mind\n" + "\n".join(paragraph(f"- {line}") for line in warnings))
    return "\n\n".join(sections)


def _stages(prediction: "Prediction") -> str:
    stages = prediction.plan.pipeline
    return f"{stages} pipeline stages" if stages > 1 else "devices, which all do the same"


def _headline(prediction: "Prediction") -> str:
    plan, machine = prediction.plan, prediction.machine
    text = (
        f"{prediction.model.name} on {count(plan.num_devices)} {machine.device.unit}s of {machine.name}: "
        f"{seconds(prediction.step_time_s)} a step"
    )
    if prediction.fits:
        return text
    missing = prediction.peak_memory_bytes - prediction.memory_capacity_bytes
    over = sum(stage.peak_bytes > prediction.memory_capacity_bytes for stage in prediction.memory)
    where = f" on {over} of {len(prediction.memory)} stages" if len(prediction.memory) > 1 else ""
    stage = f"stage {prediction.peak_stage.stage}" if where else "each"
    return (
        f"{text}\nDOES NOT FIT{where}: {stage} lacks {count(missing)} bytes ({gibibytes(missing)}) a device"
    )


def _totals(prediction: "Prediction", interval: "Interval") -> str:
    machine, plan = prediction.machine, prediction.plan
    peak = machine.device.peak_flop_per_s[plan.precision] / 1e12
    rows = [
        (
            "step time",
            f"{seconds(prediction.step_time_s)} ({interval.nominal * 100:.0f} %: {seconds(interval.low_s)} to "
            f"{seconds(interval.high_s)}; closed-form lower bound {seconds(prediction.bound_s)})",
        ),
        (
            "throughput",
            f"{significant(prediction.tokens_per_s)} tokens/s, "
            f"{significant(prediction.tokens_per_s / plan.num_devices)} a device",
        ),
        (
            "compute",
            f"MFU {percent(prediction.mfu)}, HFU {percent(prediction.hfu)}: "
            f"{significant(prediction.flop_per_s_per_device / 1e12)} TFLOP/s a device for the model, "
            f"{significant(prediction.executed_flop_per_s_per_device / 1e12)} executed, "
            f"of {peak:g} ({plan.precision}, dense)",
        ),
        ("devices", f"{count(plan.num_devices)} {machine.device.name}{_nodes(prediction)}: {layout(plan)}"),
        ("batch", _batch(prediction)),
        ("switches", _switches(plan)),
        (
            "memory",
            f"{gibibytes(prediction.peak_memory_bytes)} of {gibibytes(prediction.memory_capacity_bytes)} at the peak "
            f"(stage {prediction.peak_stage.stage}, {prediction.peak_stage.alive_micro_batches} "
            f"micro-batches alive): {'fits' if prediction.fits else 'DOES NOT FIT'}",
        ),
        ("stack", f"{prediction.stack.name}, engine {prediction.engine}"),
    ]
    return table([*rows, *_surroundings(prediction)])


def _surroundings(prediction: "Prediction") -> list[tuple[str, str]]:
    """Placement and other jobs, where they are not as usual."""
    from towtank.simulator.network.surroundings import surroundings_text

    machine = prediction.machine
    nodes = -(-prediction.plan.num_devices // machine.node.devices)
    return list(surroundings_text(prediction.surroundings, machine, nodes).items())


def _nodes(prediction: "Prediction") -> str:
    nodes = -(-prediction.plan.num_devices // prediction.machine.node.devices)
    return f" in {count(nodes)} {'node' if nodes == 1 else 'nodes'}"


def layout(plan: "Plan") -> str:
    """Degrees of a plan that are not 1, such as `tensor_x 8 x pipeline 64 x data 6`."""
    names = ("tensor_x", "tensor_y", "tensor_z", "context", "pipeline", "data")
    degrees = [f"{name} {getattr(plan, name)}" for name in names if getattr(plan, name) > 1]
    text = " x ".join(degrees) or "one device"
    if plan.expert * plan.expert_tensor > 1:
        text += f"; experts over {plan.expert}"
        text += f" x {plan.expert_tensor}" if plan.expert_tensor > 1 else ""
    return text


def _batch(prediction: "Prediction") -> str:
    plan = prediction.plan
    sequence = prediction.tokens_per_step // plan.global_batch
    return (
        f"{count(plan.global_batch)} sequences of {count(sequence)} tokens; "
        f"{count(plan.num_micro_batches)} micro-batches of {plan.micro_batch} a replica"
    )


def _switches(plan: "Plan") -> str:
    words = [plan.precision, f"recompute {plan.recompute}"]
    if plan.recompute_every > 1:
        words[-1] += f" of one layer in {plan.recompute_every}"
    if plan.cached_layers:
        words.append(f"gathered weights of {plan.cached_layers} layers cached")
    if plan.pipeline > 1:
        chunks = f" with {plan.virtual_stages} chunks a stage" if plan.virtual_stages > 1 else ""
        words.append(f"schedule {plan.schedule_name}{chunks}")
    if plan.sequence_parallel:
        words.append("sequence parallel")
    if plan.zero_stage:
        words.append(f"ZeRO {plan.zero_stage} over {plan.shard_degree}")
    if plan.context > 1:
        words.append(f"context by {plan.context_kind}")
    if plan.gradient_bucket is not None:
        words.append(f"gradients in buckets of {count(plan.gradient_bucket)} weights")
    return ", ".join(words)


def _parts(parts: Mapping[str, float], printed: Printer) -> str:
    """Parts of a whole as bars, the largest first."""
    whole = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    shown = [(name, value) for name, value in ordered if value >= _SMALLEST_PART * whole]
    if small := ordered[len(shown) :]:
        shown.append(
            (f"{len(small)} smaller" if len(small) > 1 else small[0][0], sum(value for _, value in small))
        )
    largest = shown[0][1] / whole if whole else 1.0
    rows = [
        (name, printed(value), percent(value / whole), bar(value / whole / largest, _BAR))
        for name, value in shown
    ]
    return table(rows, right=(1, 2))


def _detail(prediction: "Prediction", detail: Literal["layers", "operations"]) -> str:
    from towtank.simulator.operation_times import operation_times

    times = operation_times(prediction.step)
    heads: tuple[str, ...]
    if detail == "layers":
        heads = ("layer", "phase", "runs", "exposed")
        rows = list(_layer_rows(times))
        right = (2, 3)
    else:
        heads = ("operation", "phase", "runs", "exposed", "kind")
        rows = _operation_rows(times)
        right = (2, 3)
    about = "(seconds a step on the average device; exposed: on the compute stream or holding it up)"
    return f"{detail.capitalize()} {about}\n{table(rows, heads, right)}"


def _layer_rows(times: "tuple[OperationTime, ...]") -> Iterator[tuple[str, ...]]:
    """One row for each run of consecutive layers that take the same time."""
    from towtank.simulator.report.mapping import layer_times

    by_layer: dict[str, dict[str, tuple[float, float]]] = {}
    for (name, phase), spent in layer_times(times).items():
        by_layer.setdefault(name, {})[phase] = spent
    runs: list[tuple[str, str, dict[str, tuple[float, float]]]] = []
    for name, phases in by_layer.items():
        if runs and _alike(runs[-1][2], phases) and runs[-1][0].partition(".")[0] == name.partition(".")[0]:
            runs[-1] = (runs[-1][0], name, phases)
        else:
            runs.append((name, name, phases))
    for first, last, phases in runs:
        name = first if first == last else f"{first} to {last.rpartition('.')[2]}, each"
        for number, (phase, (runs_s, exposed_s)) in enumerate(phases.items()):
            yield ("" if number else name, phase, seconds(runs_s), seconds(exposed_s))


def _alike(one: Mapping[str, tuple[float, float]], other: Mapping[str, tuple[float, float]]) -> bool:
    return one.keys() == other.keys() and all(
        abs(a - b) <= 1e-6 * max(a, b) for phase in one for a, b in zip(one[phase], other[phase], strict=True)
    )


def _operation_rows(times: "tuple[OperationTime, ...]") -> list[tuple[str, ...]]:
    """Operations summed over the layers, the longest first."""
    total: dict[tuple[str, str, str], list[float]] = {}
    for one in times:
        parts = one.name.split(".")
        name = ".".join([parts[0], "*", *parts[2:]]) if parts[1].isdigit() else one.name
        row = total.setdefault((name, one.phase, one.kind), [0.0, 0.0])
        row[0] += one.seconds
        row[1] += one.exposed_s
    ordered = sorted(total.items(), key=lambda item: -item[1][1])
    return [
        (name, phase, seconds(run), seconds(exposed), kind) for (name, phase, kind), (run, exposed) in ordered
    ]
