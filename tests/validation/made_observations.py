"""Observations made by hand."""

from towtank.validation.factors import ANCHOR
from towtank.validation.rates import Observation


def made(
    stack: str, device: str, rate: float, count: int, source: str = "source", groups: int = 5
) -> list[Observation]:
    return [
        Observation(
            f"{source}-{stack}-{device}-{rate}-{number}",
            source,
            f"{source}|{stack}|{device}|{number % groups}",
            stack,
            device,
            rate,
        )
        for number in range(count)
    ]


def three_stacks_and_a_device(count: int = 10) -> list[Observation]:
    """Stacks at 0.5, 0.7 and 0.8, a device at 0.9 of the anchor."""
    return [
        *made("fast", ANCHOR, 0.8, count),
        *made("middle", ANCHOR, 0.7, count),
        *made("slow", ANCHOR, 0.5, count),
        *made("fast", "other", 0.72, 2 * count),
    ]
