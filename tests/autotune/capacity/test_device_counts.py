"""Numbers of devices that are looked at by default."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.autotune.capacity.device_counts import counts_near


def test_half_the_need_to_four_times_it() -> None:
    assert counts_near(900, 8, 10**6, 64) == (512, 1024, 2048, 4096)
    assert counts_near(1.0, 8, 10**6, 64) == (8, 16, 32)


def test_a_machine_that_is_too_small_is_looked_at_from_below() -> None:
    # 2 x 512 is more than the 1,024 that there are, and no odd part of 64 helps
    assert counts_near(5000, 8, 1500, 64) == (128, 256, 512, 1024)


@pytest.mark.parametrize(
    ("node", "limit", "divided", "largest"),
    [
        # Alps, 126 layers and 2,048 sequences: 63 is the odd part, and 10,752 = 4 x 21 x 128
        (4, 10_752, 126 * 2048, 10_752),
        # Frontier: 8 x 9 x 1,024 of 78,848
        (8, 78_848, 126 * 2048, 73_728),
    ],
)
def test_the_largest_number_that_layers_and_batch_divide_among(
    node: int, limit: int, divided: int, largest: int
) -> None:
    found = counts_near(limit * 0.8, node, limit, divided)
    assert found[-1] == largest and len(found) == 5


def test_a_machine_of_less_than_a_node_has_what_it_has() -> None:
    assert counts_near(100, 8, 4, 64) == (4,)


@given(
    needed=st.floats(0.001, 1e7), node=st.sampled_from([1, 4, 6, 8]), nodes=st.integers(1, 5000),
    divided=st.integers(1, 10**6),
)  # fmt: skip
def test_numbers_are_whole_nodes_of_the_machine_in_order(
    needed: float, node: int, nodes: int, divided: int
) -> None:
    found = counts_near(needed, node, node * nodes, divided)
    assert list(found) == sorted(set(found))
    assert all(count % node == 0 and count <= node * nodes for count in found)
