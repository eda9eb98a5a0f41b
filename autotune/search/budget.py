"""The time that a search may take."""

import time


class Budget:
    """The time that a search may take from when this is made."""

    def __init__(self, seconds: float | None) -> None:
        self._began = time.monotonic()
        self.seconds = seconds
        """None: as long as it takes."""

    @property
    def elapsed_s(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._began

    def left(self, needed_s: float = 0.0) -> bool:
        """Whether there is time left, for something that takes so long."""
        return self.seconds is None or self.elapsed_s + needed_s < self.seconds

    def within(self, share: float, at_least_s: float = 0.0) -> bool:
        """Whether less than a share of the time is gone, or less than so many seconds."""
        return self.seconds is None or self.elapsed_s < max(share * self.seconds, at_least_s)
