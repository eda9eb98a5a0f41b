"""What processes are told about their memory."""

import os
import sys

import pytest

from towtank.executor.measured.host_memory import merging, merging_children


def test_what_a_user_has_set_stays() -> None:
    assert merging({"GLIBC_TUNABLES": "own", "A": "b"}) == {"GLIBC_TUNABLES": "own", "A": "b"}
    found = merging({"A": "b"})
    assert found["A"] == "b"
    assert ("GLIBC_TUNABLES" in found) == sys.platform.startswith("linux")


def test_only_processes_started_inside_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with merging_children():
        inside = dict(os.environ)
    assert inside == merging(os.environ)
    assert "GLIBC_TUNABLES" not in os.environ
