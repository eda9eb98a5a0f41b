"""Texts of `towtank capacity` with their units, read into numbers."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from towtank.cli.failure import InputError

if TYPE_CHECKING:
    from towtank.autotune.capacity.request import Operation

_POWERS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][0-9]{1,2})?)\s*([kMGBT]?)")
_MODES = ("sync", "async", "lazy")


def count(option: str, text: str) -> float:
    """A number such as 15.6T.

    Raises:
        InputError: it is none, or not above 0.
    """
    match = _COUNT.fullmatch(text.strip())
    value = float(match[1]) * _POWERS[match[2]] if match else 0.0
    if not value:
        raise InputError(f"{option} {text}: must be a number above 0 such as 300G or 15.6T")
    return value


def time_s(option: str, text: str) -> float:
    """Seconds of a time such as 90d, 12h, 30min or 600s.

    Raises:
        InputError: it is none.
    """
    from towtank.hardware_profiles.errors import UnitError
    from towtank.hardware_profiles.units import parse_quantity

    try:
        return parse_quantity(text, "seconds")
    except UnitError as error:
        raise InputError(
            f"{option} {text}: must be a time such as 90d, 12h, 30min or 600s ({error})"
        ) from error


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


def operation_of(asked: Any) -> "Operation":
    """How the run is operated.

    Raises:
        InputError: every fault at once.
    """
    from towtank.autotune.capacity.facts import reliability
    from towtank.autotune.capacity.request import Operation
    from towtank.cli.failure import Inputs
    from towtank.hardware_profiles.units import parse_quantity

    inputs = Inputs()

    def seconds(option: str, text: str | None) -> float | None:
        return None if text is None else inputs.take(lambda: time_s(option, text))

    def bandwidth(text: str | None) -> float | None:
        return None if text is None else inputs.take(lambda: parse_quantity(text, "bytes_per_s"))

    if asked.checkpoint not in _MODES:
        inputs.faults.append(f"--checkpoint {asked.checkpoint}: must be one of {', '.join(_MODES)}")
    if asked.reliability is not None:
        inputs.take(lambda: reliability(asked.reliability))
    if asked.elastic is not None and asked.elastic < 1:
        inputs.faults.append(f"--elastic {asked.elastic}: must be 1 or more nodes")
    operation = Operation(
        failures_per_node_day=asked.failures,
        reliability=asked.reliability,
        detection_s=seconds("--detection", asked.detection) or 0.0,
        restart_s=seconds("--restart", asked.restart) or 0.0,
        spare_nodes=asked.spares,
        repair_s=seconds("--repair", asked.repair) or 0.0,
        elastic_nodes=asked.elastic,
        checkpoint_mode=asked.checkpoint,
        checkpoint_interval_s=seconds("--checkpoint-interval", asked.interval),
        storage_bytes_per_s=bandwidth(asked.storage),
        host_bytes_per_s=bandwidth(asked.host),
        job_limit_s=seconds("--job-limit", asked.job_limit),
        queue_s=seconds("--queue", asked.queue) or 0.0,
    )
    inputs.check()
    return operation
