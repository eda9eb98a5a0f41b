"""Option that says how devices and interfaces of a job differ."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import InputError

if TYPE_CHECKING:
    from towtank.simulator.network.variability import Variability

KINDS = ("speed", "jitter", "stragglers", "slow_links", "noise")
_FORMS = {
    "speed": "speed=0.02",
    "jitter": "jitter=0.01",
    "stragglers": "stragglers=0.001:1.3",
    "slow_links": "slow_links=0.01:0.5",
    "noise": "noise=10:25us",
}

VariabilityOption = Annotated[
    str | None,
    typer.Option(
        "--variability",
        metavar="KIND=VALUE,...",
        help="How devices and links differ, in place of the profile: standard deviations of the speed of devices "
        "(speed=0.02) and of their steps (jitter=0.01), shares of stragglers and by what they take longer "
        "(stragglers=0.001:1.3), of nodes with slow interfaces and what these keep (slow_links=0.01:0.5), "
        "interruptions a second and their length (noise=10:25us).",
        show_default=False,
    ),
]


def variability_of(text: str | None) -> "Variability | None":
    """What the option says; None where it is not given.

    Raises:
        InputError: unknown kinds and wrong values, all at once.
    """
    if text is None:
        return None
    from towtank.hardware_profiles.nearest import did_you_mean
    from towtank.simulator.network.variability import Variability

    values: dict[str, Any] = {}
    faults: list[str] = []
    seen: set[str] = set()
    for part in text.split(","):
        kind, _, value = (word.strip() for word in part.partition("="))
        kind = kind.lower().replace("-", "_")
        if kind not in KINDS:
            faults.append(f"{kind!r} is no kind{did_you_mean(kind, KINDS)} (known: {', '.join(KINDS)})")
        elif kind in seen:
            faults.append(f"{kind} is given twice")
        else:
            seen.add(kind)
            _read(kind, value, values, faults)
    if faults := faults + Variability(**values).faults():
        raise InputError(f"--variability {text}: {'; '.join(faults)}")
    return Variability(**values)


def _read(kind: str, value: str, values: dict[str, Any], faults: list[str]) -> None:
    """Put the figures of one kind into `values`, or what is wrong into `faults`."""
    from towtank.hardware_profiles.errors import UnitError

    try:
        values.update(_figures(kind, value))
    except UnitError as error:
        faults.append(f"{kind}: {error}")
    except ValueError:
        faults.append(f"{kind} = {value!r} is not understood; write it like {_FORMS[kind]}")


def _figures(kind: str, value: str) -> dict[str, float]:
    from towtank.hardware_profiles.units import parse_quantity

    first, colon, second = value.partition(":")
    if bool(colon) != (kind not in ("speed", "jitter")):
        raise ValueError(value)
    if kind == "noise":
        return {
            "interruptions_per_s": float(first),
            "interruption_s": parse_quantity(second.strip(), "seconds"),
        }
    if kind == "stragglers":
        return {"stragglers": float(first), "straggler_slowdown": float(second)}
    if kind == "slow_links":
        return {"slow_links": float(first), "slow_link_bandwidth": float(second)}
    return {kind: float(first)}
