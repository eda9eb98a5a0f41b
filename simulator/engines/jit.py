"""When a kernel over tasks is worth compiling, and how it is called either way.

A kernel is one function over indexed sequences. Interpreted on Python lists it costs some tenths of a
microsecond a task; compiled by numba some nanoseconds, but importing numba and loading the compiled code
costs a process as much as interpreting a million tasks. So a single prediction stays interpreted and a
search compiles.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTERPRETED_TASKS = 400_000
"""Tasks that a process interprets before it compiles. Several predictions of the largest jobs fit in, and a
search passes it within its first seconds."""

_interpreted_tasks = 0


def run_kernel(
    kernel: Callable[..., int],
    inputs: tuple[NDArray[Any], ...],
    outputs: tuple[NDArray[Any], ...],
    num_tasks: int,
    jit: bool | None = None,
) -> int:
    """Call `kernel(*inputs, *outputs)`, which fills the one-dimensional `outputs`, and return its answer.

    What a kernel writes into `inputs` is its working space: such arrays must not be used elsewhere.

    `jit` None decides by what the process has interpreted so far; True and False force. Both ways run the
    same operations in the same order, so they agree to the bit.
    """
    if _compile_now(num_tasks, jit):
        return int(compiled(kernel)(*inputs, *outputs))
    lists = [array.tolist() for array in outputs]
    answer = kernel(*(array.tolist() for array in inputs), *lists)
    for array, values in zip(outputs, lists, strict=True):
        array[:] = np.fromiter(values, array.dtype, len(array))  # twice as fast as to assign the list
    return answer


def _compile_now(num_tasks: int, jit: bool | None) -> bool:
    global _interpreted_tasks
    if jit is not None:
        return jit
    if "numba" in sys.modules or _interpreted_tasks + num_tasks > INTERPRETED_TASKS:
        return True
    _interpreted_tasks += num_tasks
    return False


@cache
def compiled(kernel: Callable[..., int]) -> Callable[..., int]:
    """The kernel compiled by numba; kept on disk between processes where a place for it can be written."""
    import numba

    try:
        result: Callable[..., int] = numba.njit(cache=True)(kernel)
    except RuntimeError:  # no directory can be written: compile anew in each process
        result = numba.njit(kernel)
    return result
