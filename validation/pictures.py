"""What a report shows as pictures: predicted against measured, and errors against what may drive them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from towtank.validation.evaluate import Result
from towtank.validation.features import COMPUTE
from towtank.validation.grouping import grouped, in_group
from towtank.validation.plots import Axis, Series, predicted_against_measured, small_multiples

COLOURS: Mapping[str, str] = {
    "V100": "#8c6d31",
    "A100": "#1b7837",
    "H100, H200": "#2166ac",
    "GH200": "#00a6a6",
    "B200, GB200": "#762a83",
    "B300, GB300": "#d6604d",
    "PVC and others": "#e08214",
    "Nanotron sweep": "#b8bec6",
}
_FAMILIES = (
    ("v100", "V100"),
    ("a100", "A100"),
    ("gh200", "GH200"),
    ("h100", "H100, H200"),
    ("h200", "H100, H200"),
    ("b200", "B200, GB200"),
    ("b300", "B300, GB300"),
)


def family(result: Result) -> str:
    """Family of the device, which gives the colour; the erratic sweep is one of its own."""
    if in_group(result, "chaotic"):
        return "Nanotron sweep"
    return next((name for part, name in _FAMILIES if part in result.run.device.lower()), "PVC and others")


def scatter(results: Sequence[Result], *, labels: bool) -> str:
    """Predicted against measured step time of the judged rows that are complete."""
    judged = [result for result in results if result.error is not None and result.run.gate is not False]
    groups = grouped(judged, family)
    series = [
        Series(
            name,
            COLOURS[name],
            tuple(
                (result.run.step_time_s or 0.0, result.predicted_step_time_s or 0.0)
                for result in groups[name]
            ),
            tuple(_label(result) for result in groups[name]) if labels else (),
        )
        for name in reversed(list(COLOURS))
        if name in groups
    ]
    return predicted_against_measured(
        series, f"predicted against measured step time of {len(judged)} published runs"
    )


def _label(result: Result) -> str:
    run = result.run
    return (
        f"{run.id}: {run.model} on {result.num_devices} {run.device}, measured {run.step_time_s:.4g} s, "
        f"predicted {result.predicted_step_time_s:.4g} s ({100 * (result.error or 0):+.1f} %)"
    )


_POWERS = tuple(float(2**power) for power in range(0, 13, 3))
_DEGREES = Axis(1, 64, (1, 2, 4, 8, 16, 32, 64))
_SHARES = Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), log=False, text=lambda value: f"{100 * value:.0f} %")
_BITS = {"nvfp4": 4, "mxfp8": 8, "fp8": 8, "fp32": 32, "tf32": 32}


def message_mib(result: Result) -> float | None:
    """MiB of activations that a micro-batch hands on, 2 bytes each: what a tensor group reduces and a stage sends."""
    run = result.run
    if not (run.micro_batch and run.seq_len and run.hidden):
        return None
    return run.micro_batch * run.seq_len * run.hidden * 2 / (run.cp or 1) / 2**20


_DRIVERS: Mapping[str, tuple[Axis, Callable[[Result], float | None]]] = {
    "devices": (Axis(1, 16384, _POWERS), lambda result: result.num_devices),
    "tensor degree": (_DEGREES, lambda result: result.run.tp),
    "pipeline degree": (_DEGREES, lambda result: result.run.pp),
    "micro-batch": (Axis(1, 128, (1, 4, 16, 64)), lambda result: result.run.micro_batch),
    "tokens of a sequence": (
        Axis(512, 131072, (512, 2048, 8192, 32768, 131072)),
        lambda result: result.run.seq_len,
    ),
    "hidden size": (Axis(512, 32768, (512, 2048, 8192, 32768)), lambda result: result.run.hidden),
    "bits of a multiply": (Axis(3, 40, (4, 8, 16, 32)), lambda result: _BITS.get(result.precision, 16)),
    "activations of a micro-batch, MiB": (Axis(1, 4096, (1, 8, 64, 512, 4096)), message_mib),
    "model FLOP a device and step": (
        Axis(1e12, 1e17, (1e12, 1e14, 1e16), text=lambda value: f"{value:.0e}"),
        lambda result: result.model_flop / result.num_devices,
    ),
    "share of compute": (_SHARES, lambda result: sum(result.shares.get(part, 0.0) for part in COMPUTE)),
    "share of bubble": (_SHARES, lambda result: result.shares.get("bubble", 0.0)),
    "share of exposed communication": (
        _SHARES,
        lambda result: sum(part for name, part in result.shares.items() if name.startswith("exposed")),
    ),
}
_RATIO = Axis(0.25, 4.0, (0.25, 0.5, 1.0, 2.0, 4.0), text=lambda value: f"x {value:g}")


def drivers(results: Sequence[Result]) -> str:
    """Predicted over measured step time against what may drive the error, the erratic sweep apart."""
    judged = [
        result
        for result in results
        if result.error is not None and result.run.gate is not False and not in_group(result, "chaotic")
    ]
    plots, trends = {}, {}
    for name, (axis, value) in _DRIVERS.items():
        series = _series(judged, value)
        plots[name] = (axis, series)
        trends[name] = trend(axis, (point for one in series for point in one.points))
    return small_multiples(
        plots, trends, _RATIO, "predicted over measured step time against possible causes of error"
    )


def _series(judged: Sequence[Result], value: Callable[[Result], float | None]) -> list[Series]:
    found = []
    for name, group in grouped(judged, family).items():
        points = [
            (float(x), 1 + result.error)
            for result in group
            if result.error is not None and (x := value(result)) is not None
        ]
        found.append(Series(name, COLOURS[name], tuple(points), radius=1.9))
    return found


_BINS = 8
_ENOUGH = 5
"""Points from which a bin has a median."""


def trend(axis: Axis, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Medians over equal parts of an axis: (median x, median y) of each part that holds enough points."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for x, y in points:
        bins.setdefault(min(int(axis.place(x) * _BINS), _BINS - 1), []).append((x, y))
    return [
        (median(x for x, _ in own), median(y for _, y in own))
        for _, own in sorted(bins.items())
        if len(own) >= _ENOUGH
    ]
