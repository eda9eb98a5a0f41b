"""Whether a forward pass runs for the first time, or again for a backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager

from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase

_forward = Phase.FORWARD


def forward_phase() -> Phase:
    """FORWARD, or RECOMPUTE inside `recomputing`."""
    return _forward


@contextmanager
def recomputing() -> Iterator[None]:
    """Mark forward passes inside as recomputation: for the recorder, and for weights, which then stay gathered."""
    global _forward
    before, _forward = _forward, Phase.RECOMPUTE
    try:
        with recorder.recomputing():
            yield
    finally:
        _forward = before
