"""A PostgreSQL of our own: made in a temporary folder, on a free port, thrown away after the tests."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoServerError(RuntimeError):
    """There is no PostgreSQL that could be started; the message says what is missing."""


def programs() -> Path:
    """Folder of initdb and postgres: where Debian puts them, or on the path."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    found = shutil.which("initdb")
    if found is None or shutil.which("postgres") is None:
        raise NoServerError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return Path(found).resolve().parent


def account() -> tuple[int, int] | None:
    """User and group to run it as: PostgreSQL refuses to run as root. None: as we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise NoServerError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


@contextmanager
def running() -> Iterator[str]:
    """Start a server; yields the URL of an empty database on it.

    Raises:
        NoServerError: it cannot be started, with the reason.
    """
    binaries, user = programs(), account()
    folder = Path(tempfile.mkdtemp(prefix="towtank-postgres-"))
    options = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
    if user is not None:
        os.chown(folder, *user)
    server = None
    try:
        _call([binaries / "initdb", "-D", folder / "data", "-U", "towtank", "-A", "trust", "-N"], options)
        server, port = _start(binaries, folder, options)
        yield f"postgresql+psycopg://towtank@127.0.0.1:{port}/postgres"
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # ends at once, whoever is connected
            server.wait(120)
        shutil.rmtree(folder, ignore_errors=True)


def _call(command: list[object], options: dict[str, object]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd="/", **options)
    if done.returncode:
        raise NoServerError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def _start(binaries: Path, folder: Path, options: dict[str, object]) -> tuple["subprocess.Popen[bytes]", int]:
    """The server on a port that is free; somebody else may take it in between, then on another."""
    for attempt in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        arguments = ["-D", folder / "data", "-k", folder, "-p", str(port), "-h", "127.0.0.1", "-F"]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", *arguments], stdout=log, stderr=log, cwd=folder, **options
            )
        try:
            _wait(port, server, folder / "log")
        except NoServerError as error:
            server.kill()
            server.wait()
            if attempt == 4 or "already in use" not in str(error):
                raise
        else:
            return server, port
    raise AssertionError("the loop returns or raises")


def _wait(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    import psycopg

    for _ in range(1200):
        if server.poll() is not None:
            raise NoServerError(f"postgres did not start: {log.read_text()}")
        try:
            psycopg.connect(f"postgresql://towtank@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise NoServerError("postgres did not answer within 120 s")
