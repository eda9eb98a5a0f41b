"""Ranks that look after each other, over a store in this process."""

import queue
import re
import threading
from typing import Any

import pytest

from towtank.executor.launching.heartbeat import Heartbeat


@pytest.fixture
def store() -> Any:
    import torch.distributed

    return torch.distributed.HashStore()


def test_a_silent_neighbour_ends_the_run_for_everybody(store: Any) -> None:
    messages: queue.Queue[str] = queue.Queue()
    beats = [
        Heartbeat(store, rank, 3, interval_s=0.02, patience_s=0.3, leave=messages.put) for rank in (0, 1)
    ]  # rank 2 never comes
    for one in beats:
        one.start()
    found = sorted(messages.get(timeout=20) for _ in beats)
    assert found[0] == "rank 0: stops because rank 2 does not answer"
    assert re.match(r"rank 1: rank 2 has not answered for \d+ s", found[1])


def test_ranks_that_beat_are_left_alone(store: Any) -> None:
    messages: queue.Queue[str] = queue.Queue()
    beats = [Heartbeat(store, rank, 2, interval_s=0.01, patience_s=5, leave=messages.put) for rank in (0, 1)]
    for one in beats:
        one.start()
    with pytest.raises(queue.Empty):
        messages.get(timeout=0.3)
    for one in beats:
        one.stop()
    assert messages.empty()


def test_a_store_that_hangs_is_a_run_that_hangs() -> None:
    """The store of a rank 0 that is stopped takes every call and never answers."""
    released = threading.Event()

    class Hanging:
        calls = 0

        def add(self, key: str, amount: int) -> int:
            self.calls += 1
            if self.calls > 1:
                released.wait(60)
            return 1

        def check(self, keys: list[str]) -> bool:
            return False

    messages: queue.Queue[str] = queue.Queue()
    heart = Heartbeat(Hanging(), 3, 4, interval_s=0.02, patience_s=0.3, leave=messages.put)
    heart.start()
    found = messages.get(timeout=20)
    released.set()
    heart.stop()
    assert found.startswith("rank 3: the process that keeps the ranks together (rank 0, or torchrun's agent)")


def test_rank_0_parts_when_all_others_have_parted(store: Any) -> None:
    hearts = [Heartbeat(store, rank, 3, interval_s=0.01, patience_s=60) for rank in range(3)]
    for one in hearts:
        one.start()
    first = threading.Thread(target=hearts[0].part)
    first.start()
    hearts[1].part()
    first.join(timeout=0.3)
    assert first.is_alive()
    hearts[2].part()
    first.join(timeout=20)
    assert not first.is_alive()


def test_a_store_that_is_gone_is_a_run_that_is_gone() -> None:
    class Broken:
        calls = 0

        def add(self, key: str, amount: int) -> int:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("Connection reset by peer\nstack")
            return 1

    messages: queue.Queue[str] = queue.Queue()
    Heartbeat(Broken(), 3, 4, interval_s=0.01, leave=messages.put).start()
    expected = "rank 3: the process that keeps the ranks together is gone (Connection reset by peer)"
    assert messages.get(timeout=20) == expected
