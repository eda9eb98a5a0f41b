"""Masks of dropout: the same in every plan, and random enough."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from towtank.executor.layers.dropout import kept, stream_key

_MASK = (1 << 64) - 1


def splitmix(value: int) -> int:
    """The two rounds of splitmix64's finaliser, on integers of Python."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    return ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK


def test_the_hash_is_that_of_integers_of_any_size() -> None:
    key = stream_key(3, 14, "layer.0.mlp.residual.dropout")
    mask = kept(key, torch.tensor([0, 5, 2**40]), 0, 7, 0.3)
    for row, token in enumerate((0, 5, 2**40)):
        for feature in range(7):
            mixed = splitmix(
                (splitmix((2 * token + key) & _MASK) + splitmix((2 * feature + key + 1) & _MASK)) & _MASK
            )
            # as a signed number, from the lowest three tenths up
            signed = mixed - (1 << 64) if mixed >> 63 else mixed
            assert bool(mask[row, feature]) == (signed >= round(0.3 * 2**64) - 2**63)


@given(st.integers(0, 40), st.integers(1, 24), st.permutations(range(12)))
def test_any_part_of_a_mask_is_that_part_of_the_whole(first: int, features: int, order: list[int]) -> None:
    whole = kept(7, torch.arange(12), 0, 64, 0.5)
    tokens = torch.tensor(order)
    assert torch.equal(kept(7, tokens, first, features, 0.5), whole[tokens, first : first + features])


@pytest.mark.parametrize("probability", [0.02, 0.1, 0.5])
def test_as_many_are_dropped_as_asked_in_every_row_and_column(probability: float) -> None:
    dropped = (~kept(stream_key(0, 0, "a"), torch.arange(1000), 0, 1000, probability)).double()
    deviation = math.sqrt(probability * (1 - probability))
    assert abs(float(dropped.mean()) - probability) < 4 * deviation / 1000
    for along in (0, 1):
        means = dropped.mean(along)
        # of 1000 means of 1000 draws none is farther off than 5 deviations, and they spread as such means do
        assert float((means - probability).abs().max()) < 5 * deviation / math.sqrt(1000)
        assert float(means.std()) == pytest.approx(deviation / math.sqrt(1000), rel=0.1)


@pytest.mark.parametrize("other", [(1, 0, "a"), (0, 1, "a"), (0, 0, "b")])
def test_masks_of_other_seeds_steps_and_sites_have_nothing_to_do_with_each_other(
    other: tuple[int, int, str],
) -> None:
    tokens = torch.arange(512)
    one, two = kept(stream_key(0, 0, "a"), tokens, 0, 512, 0.5), kept(stream_key(*other), tokens, 0, 512, 0.5)
    assert abs(float((one == two).double().mean()) - 0.5) < 5 * 0.5 / 512


def test_neighbours_have_nothing_to_do_with_each_other() -> None:
    mask = kept(stream_key(0, 0, "a"), torch.arange(513), 0, 513, 0.5)
    for shifted in (mask[1:, :-1], mask[:-1, 1:], mask[1:, 1:]):
        assert abs(float((mask[:-1, :-1] == shifted).double().mean()) - 0.5) < 5 * 0.5 / 512


def test_nothing_is_dropped_with_probability_zero() -> None:
    assert bool(kept(1, torch.arange(100), 0, 100, 0.0).all())
