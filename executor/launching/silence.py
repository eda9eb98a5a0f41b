"""For how long somebody has given no sign of life, told by somebody who may be stopped himself."""

import time
from collections.abc import Callable


class Silence:
    """Seconds for which a number that somebody counts up has stayed the same.

    Whoever looks may have been stopped meanwhile together with everybody else (a job that Slurm suspends, a virtual
    machine that is paused), so a look counts for no more than `longest_s`, however long ago the one before was.
    """

    def __init__(self, longest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`longest_s`: between two looks of somebody who is awake."""
        self._longest_s, self._clock = longest_s, clock
        self._last: int | None = None
        self._looked_s = clock()
        self._silent_s = 0.0

    def look(self, number: int | None) -> float:
        """Seconds of silence so far; 0 as long as the number is None: whoever has not begun is not waited for."""
        now = self._clock()
        since, self._looked_s = now - self._looked_s, now
        if number is None or number != self._last:
            self._last, self._silent_s = number, 0.0
        else:
            self._silent_s += min(since, self._longest_s)
        return self._silent_s
