"""Memory of a process on a CPU: freed memory is kept for the next tensor."""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3) of glibc."""
_NEVER = 2**31 - 1
_TUNABLES: Final = "GLIBC_TUNABLES"
_MERGING: Final = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"


def merging(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment of a new process that puts freed memory together again; what a user has set stays.

    Before release 2.39 of glibc the rest that is cut off for the alignment of a tensor goes to lists of small pieces,
    and the tensor's memory does not fit one of the same size again (sourceware bug 30723): peaks grow by up to a
    third. Without these lists the rest is merged. Only a process that begins takes this.
    """
    if not sys.platform.startswith("linux") or _TUNABLES in environment:
        return dict(environment)
    return {**environment, _TUNABLES: _MERGING}


@contextmanager
def merging_children() -> Iterator[None]:
    """`merging` for the processes that are started inside with this process's environment."""
    before = os.environ.get(_TUNABLES)
    os.environ.update(merging(os.environ))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_TUNABLES, None)


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed instead of giving it back to the system; whether it does.

    Tensors of some MB would otherwise be mapped anew for every operation, and each of their pages be cleared by the
    kernel at its first touch: for memory-bound operations that takes longer than the operation, at times that depend
    on what was freed before.
    """
    if not sys.platform.startswith("linux"):
        return False
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        mapped = library.mallopt(ctypes.c_int(_MMAP_THRESHOLD), ctypes.c_int(_NEVER))
        trimmed = library.mallopt(ctypes.c_int(_TRIM_THRESHOLD), ctypes.c_int(_NEVER))
        # threads of collectives otherwise keep what they free for themselves
        shared = library.mallopt(ctypes.c_int(_ARENA_MAX), ctypes.c_int(1))
        return bool(mapped and trimmed and shared)
    return False


def give_back_memory() -> None:
    """Return free memory to the system now, so that a peak begins at what is in use."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
