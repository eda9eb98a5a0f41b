"""Signals: SIGTERM asks a run to save and end; a rank dies with the process that started it."""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

_SET_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class Termination:
    """Whether somebody has asked this process to end."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handler of the signal."""
        self.asked = True


_SHARED: Final = Termination()


@contextmanager
def termination() -> Iterator[Termination]:
    """Note SIGTERM instead of dying of it. Contexts inside each other share the note: what comes while a run starts
    ends it after its first step."""
    before = signal.signal(signal.SIGTERM, _SHARED.ask)
    try:
        yield _SHARED
    finally:
        signal.signal(signal.SIGTERM, before)
        _SHARED.asked = False


@contextmanager
def terminations_held_back() -> Iterator[None]:
    """Keep SIGTERM waiting. Processes started meanwhile are born so: what reaches them before they can note it waits
    until they let it in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_terminations_in() -> None:
    """Deliver SIGTERM again, also one that has waited since this process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends, however it ends. Linux only."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
