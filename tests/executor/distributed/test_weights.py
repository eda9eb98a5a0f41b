"""Boxes of shards by hand, first values that do not depend on the cut, and how gradients are added up."""

import torch

from towtank.executor.distributed.boxes import Box, split
from towtank.executor.distributed.collectives import DONE
from towtank.executor.distributed.mesh import Group
from towtank.executor.distributed.pieces import Initial, Piece, Sharing
from towtank.executor.distributed.scatters import Pending, Scatters
from towtank.executor.distributed.weights import Weight, drawn


def weight(*pieces: Piece, index: int = 0, shards: int = 1, copies: int = 1) -> Weight:
    """Shard `index` of a weight, with ones to begin with."""
    group = Group("weight_shard", tuple(range(shards)), index)
    made = Weight("a", pieces, Sharing(group, group, (), copies), Scatters(asynchronous=False))
    made.materialize(Initial("constant", 1.0), 0, torch.float32, torch.float32, torch.device("cpu"))
    return made


def piece(name: str, rows: int, copies: int = 1) -> Piece:
    """All rows of a tensor of two columns."""
    return Piece(split(name, (rows, 2)), copies=copies)


def test_rows_of_shards_by_hand() -> None:
    # 3 + 4 rows over 3 shards: 3, 3 and 1; the second shard lies in the second piece alone
    pieces = (piece("q", 3, copies=2), piece("k", 4))
    shards = [weight(*pieces, index=index, shards=3, copies=5) for index in range(3)]
    boxes = [[(part.box.name, part.box.offset, part.box.size) for part in one.parts] for one in shards]
    assert boxes == [
        [("q", (0, 0), (3, 2))],
        [("k", (0, 0), (3, 2))],
        [("k", (3, 0), (1, 2))],
    ]
    assert [[part.copies for part in one.parts] for one in shards] == [[10], [5], [5]]
    assert [one.value.shape for one in shards] == [(3, 2), (3, 2), (1, 2)]


def test_more_shards_than_rows_leave_some_empty() -> None:
    last = weight(piece("q", 2), index=2, shards=3)
    assert last.parts == ()
    assert last.value.shape == (0, 2)


def test_first_values_do_not_depend_on_the_cut() -> None:
    whole = drawn(Box("w", (6, 4), (0, 0), (6, 4)), seed=7)
    part = Piece(split("w", (6, 4), {0: (1, 2), 1: (1, 2)}))
    made = weight(part)
    made.materialize(Initial("normal", 0.5), 7, torch.float64, torch.float64, torch.device("cpu"))
    assert torch.equal(made.value, (whole[3:, 2:] * 0.5).double())
    assert not torch.equal(whole, drawn(Box("w", (6, 4), (0, 0), (6, 4)), seed=8))


def test_gradients_of_micro_batches_add_up_and_the_next_step_begins_anew() -> None:
    made = weight(piece("w", 2))
    for _ in range(2):
        made.forget_gradient()
        made.accumulate(torch.full((2, 2), 2.0), "a")
        made.accumulate(torch.full((2, 2), 3.0), "a")
        assert made.gradient.tolist() == [[5.0, 5.0], [5.0, 5.0]]
    made.forget_gradient()
    made.finish_gradient()
    assert made.gradient.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_gradient_of_its_own_begins_with_zero_once_a_step() -> None:
    made = weight(piece("w", 1))
    made.gradient.fill_(9.0)
    first, again = made.own_gradient(), made.own_gradient()
    assert first is not None
    assert first is again
    assert first.tolist() == [[0.0, 0.0]]
    assert weight(piece("w", 4), shards=2).own_gradient() is None


def test_buffers_of_gradients_are_padded_with_zeros() -> None:
    buffer = weight(piece("w", 3), shards=2).gradient_buffer(torch.float32)
    assert buffer.shape == (4, 2)
    assert buffer[3].tolist() == [0.0, 0.0]


def test_as_many_reductions_as_told_are_under_way_at_once() -> None:
    scatters, made = Scatters(asynchronous=True, most=2), weight(piece("w", 1))
    for number in (1.0, 2.0, 4.0, 8.0):
        scatters.put(Pending(made, torch.full((1, 2), number), DONE, "a", "elementwise"))
    assert made.gradient.tolist() == [[3.0, 3.0]]  # of the first two; two are left
    scatters.settle(frozenset({weight(piece("other", 1))}))
    assert scatters.busy and made.gradient.tolist() == [[3.0, 3.0]]
    scatters.settle(frozenset({made}))
    assert not scatters.busy and made.gradient.tolist() == [[15.0, 15.0]]
