"""Start and finish of each task when nothing but order and dependencies holds it back."""

from collections.abc import MutableSequence, Sequence


def longest_path(
    previous: Sequence[int],
    first: Sequence[int],
    num_more: Sequence[int],
    more: Sequence[int],
    duration_s: Sequence[float],
    start_s: MutableSequence[float],
    finish_s: MutableSequence[float],
    binding: MutableSequence[int],
) -> int:
    """Fill `start_s` [tasks], `finish_s` [tasks + 1] in seconds and `binding` [tasks]; return the number of
    tasks.

    start(t) = max(finish of the previous task of its stream, finish of each predecessor)

    All by position in a topological order (`layout.OrderedLayout`). The last entry of `finish_s` stands for
    "no task" and must be 0. Of two finishes that tie, the stream's own binds, then the predecessor listed
    first. Written for numba and for lists alike: no vector operations.
    """
    position = 0
    edge = 0
    for before, dependency, others, lasts_s in zip(previous, first, num_more, duration_s):  # noqa: B905 (numba)
        begin_s = finish_s[before]
        cause = before
        other_s = finish_s[dependency]
        if other_s > begin_s:
            begin_s = other_s
            cause = dependency
        if others > 0:
            for _ in range(others):
                other_s = finish_s[more[edge]]
                if other_s > begin_s:
                    begin_s = other_s
                    cause = more[edge]
                edge += 1
        start_s[position] = begin_s
        finish_s[position] = begin_s + lasts_s
        binding[position] = cause
        position += 1
    return position
