"""Numbers of devices that a capacity plan looks at where the user names none."""

from collections.abc import Iterator
from math import log

WIDTH = 4
"""Powers of two that are looked at, from half of what is needed on."""


def counts_near(needed: float, node_devices: int, limit: int, divided: int) -> tuple[int, ...]:
    """Numbers of devices around `needed`, whole nodes by powers of two up to `limit`.

    Where even the largest power of two may be too few, also the largest number of devices whose odd part divides
    `divided`, the layers times the sequences of a step: degrees of pipelines and replicas take other factors hardly.
    """
    counts = [node_devices * 2**power for power in range(24) if node_devices * 2**power <= limit]
    if not counts:
        return (limit,)
    nearest = min(range(len(counts)), key=lambda place: abs(log(counts[place] / max(needed, 1.0))))
    first = max(0, min(nearest - 1, len(counts) - WIDTH))
    chosen = counts[first : nearest + WIDTH - 1]
    if 2 * needed <= counts[-1]:
        return tuple(chosen)
    larger = max(_of_odd_parts(node_devices, limit, divided))
    return (*chosen, larger) if larger > counts[-1] else tuple(chosen)


def _of_odd_parts(node_devices: int, limit: int, divided: int) -> Iterator[int]:
    """For each odd divisor the largest number of nodes that is it times a power of two."""
    for odd in range(1, limit // node_devices + 1, 2):
        if divided % odd == 0:
            yield node_devices * odd * 2 ** ((limit // (node_devices * odd)).bit_length() - 1)
