"""Signs of life between the ranks of a run that another launcher started, so that none waits for one that is gone.

A collective of a rank whose peer has vanished may wait for as long as the library allows (half an hour by default),
and a rank that is stopped, not dead, breaks no connection at all. So each rank counts up a number in the store at
which all ranks met, and watches the number of its neighbour.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from towtank.executor.errors import LostRankError

INTERVAL_S: Final = 3.0
PATIENCE_S: Final = 30.0
"""Silence of a neighbour after which it counts as lost."""
_LOST: Final = "lost"


def _leave(message: str) -> None:
    """End this process at once: its main thread may sit in a collective for ever."""
    print(f"towtank: {message}", file=sys.stderr, flush=True)
    os._exit(LostRankError.code)


class Heartbeat:
    """A thread that shows that this rank lives and looks after the next one."""

    def __init__(
        self,
        store: Any,
        rank: int,
        world_size: int,
        *,
        interval_s: float = INTERVAL_S,
        patience_s: float = PATIENCE_S,
        leave: Callable[[str], None] = _leave,
    ) -> None:
        """Watch over a `store` (of torch.distributed) that no other thread uses."""
        self._store, self._rank = store, rank
        self._next = (rank + 1) % world_size
        self._interval_s, self._patience_s, self._leave = interval_s, patience_s, leave
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._store.add(self._key(self._rank), 1)
        self._thread.start()

    def stop(self) -> None:
        """End without a word; the others must know by now that this rank is done."""
        self._stopping.set()
        self._thread.join(timeout=2 * self._interval_s)

    def _key(self, rank: int) -> str:
        return f"beat/{rank}"

    def _run(self) -> None:
        last, since = 0, time.monotonic()
        while not self._stopping.wait(self._interval_s):
            try:
                message, last, since = self._beat(last, since)
            except Exception as error:  # whatever the store raises: its process, rank 0 or the agent, is gone
                message = (
                    f"rank {self._rank}: the process that keeps the ranks together is gone ({_line(error)})"
                )
            if message is not None and not self._stopping.is_set():
                self._leave(message)
                return

    def _beat(self, last: int, since: float) -> tuple[str | None, int, float]:
        """Show life, then look: at the whole run, and at the neighbour."""
        self._store.add(self._key(self._rank), 1)
        if self._store.check([_LOST]):
            gone = self._store.get(_LOST).decode()
            return f"rank {self._rank}: stops because rank {gone} does not answer", last, since
        count, now = int(self._store.add(self._key(self._next), 0)), time.monotonic()
        if count != last:
            return None, count, now
        if now - since < self._patience_s:
            return None, last, since
        self._store.set(_LOST, str(self._next))
        silent = f"rank {self._next} has not answered for {now - since:.0f} s"
        return f"rank {self._rank}: {silent}; it was killed or hangs, so this rank stops", last, since


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:120]
