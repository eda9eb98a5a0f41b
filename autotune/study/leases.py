"""Which workers of a study are alive. The same on every storage; Optuna's heartbeat exists on databases only.

Every worker writes a sign of life into the study from time to time. Another worker takes it for dead when its process
is gone, if both run on the same node, and otherwise when it has not seen the sign change for some time by its own
clock: clocks of nodes are never compared.
"""

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.study import Study

PREFIX = "worker "
"""Study attributes of workers begin with this."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process that works on a study."""

    identifier: str
    node: str
    """The node, its start and its process namespace: processes are comparable where all three agree."""
    process: int
    started: str
    """When the process started, in clock ticks of its node: process numbers are used again."""

    @staticmethod
    def this_process() -> "Worker":
        """The worker that this process is."""
        process = os.getpid()
        return Worker(uuid.uuid4().hex[:12], _node(), process, _start_of(process))


def _node() -> str:
    parts = [platform.node()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:  # no /proc: never compare processes, not even on this node
        parts.append(uuid.uuid4().hex)
    return " ".join(parts)


def _start_of(process: int) -> str:
    """Start of a process as its node counts; empty where there is no such process, or a finished one."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class Heartbeat:
    """Writes signs of life of a worker into the study while the block runs."""

    def __init__(
        self, study: "Study", worker: Worker, interval_s: float, release: Callable[[], None]
    ) -> None:
        """`release` gives back what the thread holds of the storage; it is called at its end."""
        self._study, self._worker, self._interval_s, self._release = study, worker, interval_s, release
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._sign(0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._sign(-1)

    def _beat(self) -> None:
        count = 0
        while not self._end.wait(self._interval_s):
            count += 1
            try:
                self._sign(count)
            except Exception:
                continue  # a storage that is out of reach for a while: the next sign says as much
            finally:
                self._release()

    def _sign(self, count: int) -> None:
        """Write the sign; -1 says that the worker has left."""
        self._study.set_user_attr(PREFIX + self._worker.identifier, {**asdict(self._worker), "sign": count})


class Watch:
    """What one worker has seen of the others."""

    def __init__(self, worker: Worker, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker, self._lease_s, self._clock = worker, lease_s, clock
        self._seen: dict[str, tuple[object, float]] = {}

    def is_dead(self, identifier: str, attributes: Mapping[str, Any]) -> bool:
        """Whether a worker has died or left, by the attributes of the study.

        A trial that nobody has signed yet (its worker may have died between taking and signing it) is asked for by
        any name that stays the same.
        """
        if identifier == self._worker.identifier:
            return False
        record = attributes.get(PREFIX + identifier)
        if record is not None:
            if record["sign"] == -1:
                return True
            if record["node"] == self._worker.node:
                return _start_of(int(record["process"])) != str(record["started"])
        sign = None if record is None else record["sign"]
        now = self._clock()
        known, since = self._seen.get(identifier, (object(), now))
        if known != sign:
            self._seen[identifier] = (sign, now)
            return False
        return now - since > self._lease_s
