"""Searches under way, each in a process of its own that can be stopped."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_RUNNING = 2
"""Each takes all cores."""
MOST_KEPT = 20
"""Searches whose answers are kept; the oldest that are done go first."""


@dataclass(slots=True, eq=False)
class Search:
    """One search."""

    process: subprocess.Popen[str]
    follower: threading.Thread | None = None
    state: dict[str, Any] = field(default_factory=lambda: {"state": "running"})
    """What the page is told: replaced as a whole, so that a reader sees one or the other."""
    page: str | None = None
    """The report of a capacity plan."""
    stopped: bool = False
    """Whether somebody has asked it to end."""

    def follow(self) -> None:
        """Read what the process says until it ends."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                try:
                    told = json.loads(line)
                except ValueError:
                    continue  # a library printed it
                self.page = told.pop("page", None)
                if "progress" in told:
                    self.state = {"state": "running", **told}
                else:
                    self.state = {"state": "done" if "result" in told else "failed", **told}
        self.process.wait()
        if self.state["state"] == "running":
            early = "stopped before the first plan was found"
            fault = early if self.stopped else f"the search ended with code {self.process.returncode}"
            self.state = {"state": "failed", "faults": [fault]}


class Searches:
    """All searches of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: dict[str, Search] = {}

    def start(self, fields: Mapping[str, str], folder: Path, kind: str = "tune") -> str | None:
        """Start a search, or a capacity plan, and return its name; None where too many are under way."""
        with self._lock:
            if sum(each.state["state"] == "running" for each in self._all.values()) >= MOST_RUNNING:
                return None
            done = [name for name, each in self._all.items() if each.state["state"] != "running"]
            for name in done[: max(0, len(self._all) - MOST_KEPT + 1)]:
                del self._all[name]
            name, search = secrets.token_urlsafe(12), Search(_process())
            self._all[name] = search
        assert search.process.stdin is not None
        # where the process has ended already, its follower says so
        with contextlib.suppress(BrokenPipeError), search.process.stdin as form:
            json.dump({"fields": dict(fields), "folder": str(folder), "kind": kind}, form)
        search.follower = threading.Thread(target=search.follow, daemon=True)
        search.follower.start()
        return name

    def state(self, name: str) -> dict[str, Any] | None:
        """How far a search is, or its answer; None: there is none of that name."""
        found = self._all.get(name)
        return None if found is None else found.state

    def page(self, name: str) -> str | None:
        """The report of a capacity plan; None: there is none of that name."""
        found = self._all.get(name)
        return None if found is None else found.page

    def stop(self, name: str) -> bool:
        """Ask a search to end with what it has; whether there is one."""
        found = self._all.get(name)
        if found is not None and found.process.poll() is None:
            found.stopped = True
            if "progress" in found.state:
                found.process.send_signal(signal.SIGINT)
            else:  # it has nothing yet, and may not even be able to answer
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(found.process.pid, signal.SIGTERM)
        return found is not None

    def close(self) -> None:
        """End every search, with the processes that it started."""
        for search in self._all.values():
            if search.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(search.process.pid, signal.SIGKILL)
                search.process.wait()
            if search.follower is not None:
                search.follower.join()


def _process() -> subprocess.Popen[str]:
    # a session of its own: Ctrl-C in the terminal is for the server, which ends its searches itself
    command = [sys.executable, "-m", "towtank.pages.local.searcher"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
