"""Clocks: moments of the stream that computes, on a CPU and on a GPU."""

import time
from collections.abc import Callable
from typing import Any, Protocol

Moment = Any
"""What a clock notes: nanoseconds on a CPU, an event on a GPU."""

Completion = Callable[[], float | None]
"""Seconds from the issue of a collective to its completion; None where nobody knows."""


class Clock(Protocol):
    """Moments now, seconds when the step is over."""

    def start(self) -> None:
        """Begin a step."""

    def now(self) -> Moment:
        """The moment that the compute stream has reached when it gets here."""

    def resolve(self, moments: list[Moment]) -> list[float]:
        """Seconds of moments on the clock of the process; waits for the device where it has to."""

    def watch(self, work: Any, begin: Moment) -> Completion:
        """How long after `begin` the collective `work` completes."""


class HostClock:
    """The clock of the process: compute on a CPU is done when the call returns."""

    now = staticmethod(time.perf_counter_ns)

    def start(self) -> None:
        """Nothing to prepare."""

    def resolve(self, moments: list[Moment]) -> list[float]:
        """Seconds of `time.perf_counter`."""
        return [1e-9 * moment for moment in moments]

    def watch(self, work: Any, begin: Moment) -> Completion:
        """Completion as the library's own thread reports it; sends and receives of gloo do not."""
        try:
            future = work.get_future()
        except (AttributeError, RuntimeError):  # no collective, or one without a future
            return lambda: None
        finished: list[int] = []
        future.add_done_callback(lambda _: finished.append(time.perf_counter_ns()))
        return lambda: 1e-9 * (finished[0] - begin) if finished else None


class DeviceClock:
    """Events on the current stream of a GPU. Collectives' times are NCCL's own (TORCH_NCCL_ENABLE_TIMING)."""

    def __init__(self) -> None:
        import torch

        self._event: Any = torch.cuda.Event
        self._synchronize = torch.cuda.synchronize
        self._free: list[Any] = []
        self._base: Any = None
        self._base_s = 0.0

    def start(self) -> None:
        """Relate events to the clock of the process: once a step, so that they do not drift apart."""
        self._synchronize()
        self._base_s = time.perf_counter()
        self._base = self._event(enable_timing=True)
        self._base.record()

    def now(self) -> Moment:
        """An event on the current stream."""
        event = self._free.pop() if self._free else self._event(enable_timing=True)
        event.record()
        return event

    def resolve(self, moments: list[Moment]) -> list[float]:
        """Seconds of `time.perf_counter` at which the device reached each event."""
        self._synchronize()
        seconds = [self._base_s + 1e-3 * float(self._base.elapsed_time(event)) for event in moments]
        self._free += list({id(event): event for event in moments}.values())
        return seconds

    def watch(self, work: Any, begin: Moment) -> Completion:
        """Duration of the collective on its own stream, where NCCL has timed it."""

        def duration() -> float | None:
            try:
                return 1e-3 * float(work._get_duration())
            except (AttributeError, RuntimeError):
                return None

        return duration


def clock_of(device_type: str) -> Clock:
    """The clock of a kind of device: `cpu` or `cuda`."""
    return DeviceClock() if device_type == "cuda" else HostClock()
