"""Moments of several queues: each belongs to one piece."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.executor.measured.exposure import Piece, exposed


def test_communication_is_exposed_where_nothing_computes() -> None:
    pieces = [
        Piece(0, 4, False),
        Piece(2, 9, True),  # hidden until 4, then from 6 to 7
        Piece(6, 7, False),
        Piece(8, 12, True),  # the one that began last has the moments from 8
    ]
    assert exposed(pieces, 0, 14) == ([4, 2 + 1, 1, 4], 2)


def test_an_operation_inside_another_one_is_taken_out_of_it() -> None:
    pieces = [Piece(0, 10, False), Piece(2, 5, False), Piece(3, 4, False), Piece(5, 10, False)]
    assert exposed(pieces, 0, 10) == ([2, 2, 1, 5], 0)


def test_of_two_that_begin_together_the_inner_one_has_the_moment() -> None:
    assert exposed([Piece(0, 2, False), Piece(0, 8, False)], 0, 8) == ([2, 6], 0)


def test_only_the_window_counts() -> None:
    assert exposed([Piece(-5, 3, False), Piece(4, 50, True)], 1, 6) == ([2, 2], 1)


@given(
    st.lists(st.tuples(st.integers(-5, 40), st.integers(0, 12), st.booleans()), max_size=25),
    st.integers(1, 30),
)
def test_shares_and_rest_sum_to_the_window(raw: list[tuple[int, int, bool]], length: int) -> None:
    pieces = [Piece(start, start + size, beside) for start, size, beside in raw]
    shares, idle = exposed(pieces, 0, length)
    assert sum(shares) + idle == pytest.approx(length)
    covered = {at for one in pieces for at in range(max(0, int(one.start)), min(length, int(one.finish)))}
    computed = {
        at
        for one in pieces
        if not one.beside
        for at in range(max(0, int(one.start)), min(length, int(one.finish)))
    }
    assert idle == pytest.approx(length - len(covered))
    own = sum(share for share, one in zip(shares, pieces, strict=True) if not one.beside)
    assert own == pytest.approx(len(computed))
