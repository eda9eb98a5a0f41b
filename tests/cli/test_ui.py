"""`towtank ui`: it starts, says where it is, and Ctrl-C ends it and its searches."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from towtank.pages.local.searches import Searches

FORM = {"model": "megatron-1t", "machine": "selene", "devices": "3072", "global_batch": "3072"}


@pytest.mark.slow
def test_it_ends_cleanly_on_ctrl_c_with_its_searches(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "towtank.cli", "ui", "--port", "0", "--no-browser"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as server:
        assert server.stdout and server.stderr
        address = server.stdout.readline().split()[3]
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(address + "api/tune", json.dumps(FORM).encode(), headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 202
        server.send_signal(signal.SIGINT)
        assert server.stdout.read() == "ended\n"
        assert server.stderr.read() == ""
        assert server.wait(30) == 0


def test_a_port_that_is_taken_is_one_message(towtank) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = towtank("ui", "--no-browser", "--port", str(port))
    assert outcome.code == 2
    assert (
        outcome.err
        == f"towtank: --port {port}: Address already in use; choose another, or 0 for any that is free\n"
    )


def test_a_search_that_is_stopped_at_once_says_so(tmp_path: Path) -> None:
    searches = Searches()
    name = searches.start(FORM, tmp_path)
    assert searches.stop(name)
    searches._all[name].follower.join(60)
    state = searches.state(name)
    searches.close()
    assert state == {"state": "failed", "faults": ["stopped before the first plan was found"]}


def test_a_third_search_has_to_wait_and_closing_ends_all(tmp_path: Path) -> None:
    searches = Searches()
    names = [searches.start(FORM, tmp_path) for _ in range(3)]
    searches.close()
    assert [name is not None for name in names] == [True, True, False]
    for name in names[:2]:
        assert searches.state(name)["state"] == "failed"
