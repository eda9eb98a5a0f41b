"""SIGTERM is noted, and given back."""

import os
import signal

from towtank.executor.launching.signals import termination


def test_sigterm_is_noted_in_the_contexts_around_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with termination() as outer:
        assert not outer.asked
        os.kill(os.getpid(), signal.SIGTERM)
        with termination() as inner:
            assert inner.asked  # it came while the run began
    assert signal.getsignal(signal.SIGTERM) == before
    with termination() as later:
        assert not later.asked
