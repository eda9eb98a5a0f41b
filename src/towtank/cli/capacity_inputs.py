"""Texts of `towtank capacity` with their units, read into numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast, overload

from towtank.cli.failure import InputError, Inputs

if TYPE_CHECKING:
    from towtank.autotune.capacity.request import Operation
    from towtank.autotune.capacity.run.records import CheckpointMode, Evaluation, Maintenance, Stragglers
    from towtank.cli.capacity_options import Running
    from towtank.hardware_profiles.units import Dimension

_MODES = ("sync", "async", "lazy")


def count(option: str, text: str) -> float:
    """A number such as 15.6T.

    Raises:
        InputError: it is none, or not above 0.
    """
    from towtank.autotune.capacity.request import parse_count

    value = parse_count(text)
    if value is None:
        raise InputError(f"{option} {text}: must be a number above 0 such as 300G or 15.6T")
    return value


@overload
def time_s(option: str, text: str) -> float: ...


@overload
def time_s(option: str, text: str | None) -> float | None: ...


def time_s(option: str, text: str | None) -> float | None:
    """Seconds of a time such as 90d, 12h, 30min or 600s; None stays None.

    Raises:
        InputError: it is none.
    """
    return _quantity(option, text, "seconds", "a time such as 90d, 12h, 30min or 600s")


def above_0(option: str, text: str | None) -> float | None:
    """Seconds of a time that must pass; None stays None.

    Raises:
        InputError: it is none, or 0.
    """
    value = time_s(option, text)
    if value is not None and value <= 0:
        raise InputError(f"{option} {text}: must be above 0")
    return value


def watts(option: str, text: str | None) -> float | None:
    """Watts of a power such as 20 MW; None stays None.

    Raises:
        InputError: it is none.
    """
    return _quantity(option, text, "watts", "a power such as 20MW")


def bandwidth(option: str, text: str | None) -> float | None:
    """Bytes a second of a bandwidth such as 2 TB/s; None stays None.

    Raises:
        InputError: it is none, or 0.
    """
    value = _quantity(option, text, "bytes_per_s", "a bandwidth such as 2TB/s")
    if value == 0:
        raise InputError(f"{option} {text}: must be above 0")
    return value


def _quantity(option: str, text: str | None, dimension: "Dimension", example: str) -> float | None:
    from towtank.hardware_profiles.errors import UnitError
    from towtank.hardware_profiles.units import parse_quantity

    if text is None:
        return None
    try:
        return parse_quantity(text, dimension)
    except UnitError as error:
        raise InputError(f"{option} {text}: must be {example} ({error})") from error


def factors(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Ranges of INPUT=LOW..HIGH.

    Raises:
        InputError: every text that is none, at once.
    """
    from towtank.autotune.capacity.request import INPUTS
    from towtank.hardware_profiles.nearest import did_you_mean

    found, faults = {}, []
    for text in texts:
        name, _, rest = text.partition("=")
        ends = [_positive(part) for part in rest.split("..")]
        if name not in INPUTS:
            faults.append(
                f"--range {text}: {name} is unknown{did_you_mean(name, INPUTS)} (known: {', '.join(INPUTS)})"
            )
        elif len(ends) != 2 or None in ends or ends[0] > ends[1]:  # type: ignore[operator]
            faults.append(
                f"--range {text}: must be INPUT=LOW..HIGH with factors above 0, such as {name}=0.5..2"
            )
        else:
            found[name] = (float(ends[0] or 0), float(ends[1] or 0))
    if faults:
        raise InputError("; ".join(faults))
    return found


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def ramp_of(text: str | None, tokens: float | None, full: int | None) -> tuple[tuple[int, float], ...]:
    """Stretches of SEQUENCES:TOKENS,... before the full batch; None: none.

    Raises:
        InputError: a part is none, is not smaller than the full batch, or they take all tokens.
    """
    found, faults = [], []
    for part in (text or "").split(",") if text is not None else ():
        batch, _, size = part.strip().partition(":")
        if not batch.isdecimal() or int(batch) < 1 or not size:
            faults.append(f"--ramp {part}: must be SEQUENCES:TOKENS, such as 256:50G")
            continue
        if full is not None and int(batch) >= full:
            faults.append(f"--ramp {part}: {batch} sequences are not fewer than the full batch of {full:,}")
        try:
            found.append((int(batch), count("--ramp", size)))
        except InputError as error:
            faults.append(str(error))
    if tokens is not None and sum(size for _, size in found) >= tokens:
        faults.append(f"--ramp {text}: takes all of the {tokens:.4g} tokens; leave some for the full batch")
    if faults:
        raise InputError("; ".join(faults))
    return tuple(found)


def _times(inputs: Inputs, running: "Running") -> dict[str, float | None]:
    """Seconds by option."""
    texts = {
        "--detection": running.detection, "--restart": running.restart, "--repair": running.repair,
        "--queue": running.queue, "--start": running.start,
    }  # fmt: skip
    found = {
        option: inputs.take(lambda option=option, text=text: time_s(option, text))  # type: ignore[misc]
        for option, text in texts.items()
    }
    for option, text in (("--checkpoint-interval", running.interval), ("--job-limit", running.job_limit)):
        found[option] = inputs.take(lambda option=option, text=text: above_0(option, text))  # type: ignore[misc]
    return found


def operation_of(running: "Running", inputs: Inputs) -> "Operation":
    """How the run is operated; every fault is noted in `inputs`, and the record is then of no use."""
    from towtank.autotune.capacity.facts import reliability
    from towtank.autotune.capacity.request import Operation

    if running.checkpoint not in _MODES:
        inputs.faults.append(f"--checkpoint {running.checkpoint}: must be one of {', '.join(_MODES)}")
    if running.reliability is not None:
        inputs.take(lambda: reliability(running.reliability or ""))
    times = _times(inputs, running)
    storage, host = _bandwidths(inputs, running)
    maintenance = inputs.take(lambda: _maintenance(running.maintenance))
    evaluation = inputs.take(lambda: _evaluation(running.evaluation))
    stragglers = inputs.take(lambda: _stragglers(running.stragglers))
    return Operation(
        failures_per_node_day=running.failures,
        reliability=running.reliability,
        detection_s=times["--detection"] or 0.0,
        restart_s=times["--restart"],
        spare_nodes=running.spares,
        repair_s=times["--repair"] or 0.0,
        elastic_nodes=running.elastic,
        checkpoint_mode=cast("CheckpointMode", running.checkpoint),
        checkpoint_interval_s=times["--checkpoint-interval"],
        storage_bytes_per_s=storage,
        storage_files_per_s=running.files,
        host_bytes_per_s=host,
        job_limit_s=times["--job-limit"],
        queue_s=times["--queue"] or 0.0,
        start_s=times["--start"],
        maintenance=maintenance,
        evaluation=evaluation,
        stragglers=stragglers,
    )


def _bandwidths(inputs: Inputs, running: "Running") -> tuple[float | None, float | None]:
    return (
        inputs.take(lambda: bandwidth("--storage-bandwidth", running.storage)),
        inputs.take(lambda: bandwidth("--host-bandwidth", running.host)),
    )


def _parts(option: str, text: str, example: str) -> list[str]:
    parts = [part.strip() for part in text.split(":")]
    if len(parts) != example.count(":") + 1 or not all(parts):
        raise InputError(f"{option} {text}: must be like {example}")
    return parts


def _maintenance(text: str | None) -> "Maintenance | None":
    from towtank.autotune.capacity.run.records import Maintenance

    if text is None:
        return None
    every, lasts = (time_s("--maintenance", part) for part in _parts("--maintenance", text, "14d:8h"))
    if not 0 <= lasts < every:
        raise InputError(
            f"--maintenance {text}: a standstill must be shorter than the time from one to the next, as in 14d:8h"
        )
    return Maintenance(every, lasts)


def _evaluation(text: str | None) -> "Evaluation | None":
    from towtank.autotune.capacity.run.records import Evaluation

    if text is None:
        return None
    steps, lasts = _parts("--evaluation", text, "1000:60s")
    if not steps.isdecimal() or int(steps) < 1:
        raise InputError(f"--evaluation {text}: {steps} must be a number of steps, 1 or more")
    return Evaluation(int(steps), time_s("--evaluation", lasts))


def _stragglers(text: str | None) -> "Stragglers | None":
    from towtank.autotune.capacity.assemble import DAY_S
    from towtank.autotune.capacity.run.records import Stragglers

    if text is None:
        return None
    rate, slowdown, found = _parts("--stragglers", text, "0.001:1.2:1h")
    numbers = [_positive(rate), _positive(slowdown)]
    if numbers[0] is None or numbers[1] is None or numbers[1] <= 1:
        raise InputError(
            f"--stragglers {text}: must be a rate above 0, a factor above 1 and a time, as 0.001:1.2:1h"
        )
    return Stragglers(numbers[0] / DAY_S, numbers[1], time_s("--stragglers", found))
