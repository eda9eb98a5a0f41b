"""Signs of life between the ranks of a run that another launcher started, so that none waits for one that is gone.

A collective of a rank whose peer has vanished may wait for as long as the library allows (half an hour by default),
and a rank that is stopped, not dead, breaks no connection at all. So each rank counts up a number in the store at
which all ranks met, and watches the number of its neighbour. The store itself may be in a rank that is stopped, and
then a call never comes back: a second thread watches the calls.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from towtank.executor.errors import LostRankError
from towtank.executor.launching.silence import Silence

INTERVAL_S: Final = 3.0
PATIENCE_S: Final = 30.0
"""Silence of a neighbour after which it counts as lost."""
_LOST: Final = "lost"
_PARTED: Final = "parted"
_PARTING_S: Final = 20.0
"""How long rank 0, in whose process the store may be, waits for the others at the end."""


def _leave(message: str) -> None:
    """End this process at once: its main thread may sit in a collective for ever."""
    print(f"towtank: {message}", file=sys.stderr, flush=True)
    os._exit(LostRankError.code)


class Heartbeat:
    """Shows that this rank lives, and looks after the next one."""

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
        self._store, self._rank, self._world_size = store, rank, world_size
        self._next = (rank + 1) % world_size
        self._interval_s, self._patience_s, self._leave = interval_s, patience_s, leave
        self._stopping = threading.Event()
        self._neighbour = Silence(2 * interval_s)
        self._beats = 0
        self._threads = [
            threading.Thread(target=one, name="heartbeat", daemon=True) for one in (self._run, self._guard)
        ]

    def start(self) -> None:
        """Begin to beat."""
        self._store.add(self._key(self._rank), 1)
        for one in self._threads:
            one.start()

    def stop(self) -> None:
        """End without a word: the others must know by now that this rank is done, or it has failed."""
        self._stopping.set()
        for one in self._threads:
            one.join(timeout=2 * self._interval_s)

    def part(self) -> None:
        """End when all ranks are done. Rank 0 goes last: it may take the store along."""
        self.stop()
        with suppress(Exception):  # whatever the store raises: the work is done
            parted = int(self._store.add(_PARTED, 1))
            end = time.monotonic() + _PARTING_S
            while self._rank == 0 and parted < self._world_size and time.monotonic() < end:
                time.sleep(0.02)
                parted = int(self._store.add(_PARTED, 0))

    def _key(self, rank: int) -> str:
        return f"beat/{rank}"

    def _guard(self) -> None:
        """Look whether the other thread's calls come back."""
        calls = Silence(2 * self._interval_s)
        while not self._stopping.wait(self._interval_s):
            silent_s = calls.look(self._beats)
            if silent_s > self._patience_s:
                self._leave(
                    f"rank {self._rank}: the process that keeps the ranks together (rank 0, or torchrun's agent) "
                    f"has not answered for {silent_s:.0f} s; it hangs, so this rank stops"
                )
                return

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                message = self._beat()
            except Exception as error:  # whatever the store raises: its process, rank 0 or the agent, is gone
                message = (
                    f"rank {self._rank}: the process that keeps the ranks together is gone ({_line(error)})"
                )
            self._beats += 1
            if message is not None and not self._stopping.is_set():
                self._stopping.set()
                self._leave(message)
                return

    def _beat(self) -> str | None:
        """Show life, then look: at the whole run, and at the neighbour. Why this rank stops; None if it does not."""
        self._store.add(self._key(self._rank), 1)
        if self._store.check([_LOST]):
            gone = self._store.get(_LOST).decode()
            return f"rank {self._rank}: stops because rank {gone} does not answer"
        silent_s = self._neighbour.look(int(self._store.add(self._key(self._next), 0)))
        if silent_s < self._patience_s:
            return None
        self._store.set(_LOST, str(self._next))
        silent = f"rank {self._next} has not answered for {silent_s:.0f} s"
        return f"rank {self._rank}: {silent}; it was killed or hangs, so this rank stops"


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:120]
