"""Memory of a process on a CPU: freed memory is kept for the next tensor."""

import ctypes
import sys
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3) of glibc."""
_NEVER = 2**31 - 1


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
