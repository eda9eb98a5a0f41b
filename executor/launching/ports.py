"""A port at which the processes of one machine meet."""

import random
import socket
from pathlib import Path
from typing import Final

_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST: Final = 15_000
_TRIES: Final = 100


def free_port() -> int:
    """A port of this machine that nobody listens at.

    Some seconds go by until the process that meets the others there is up, and meanwhile every connection that
    somebody opens takes a port of the range that the kernel hands out. So this one lies below that range, where only
    a listener can take it.
    """
    for _ in range(_TRIES):
        port = random.SystemRandom().randrange(_LOWEST, max(_first_of_kernel(), _LOWEST + 1))
        try:
            return _bound(port)
        except OSError:
            continue
    return _bound(0)


def _first_of_kernel() -> int:
    """First port that the kernel gives to connections; 0 where it does not tell."""
    try:
        return int(_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _bound(port: int) -> int:
    """The port, if it can be listened at; 0: any one. Raises OSError where it is in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        found: int = probe.getsockname()[1]
        return found
