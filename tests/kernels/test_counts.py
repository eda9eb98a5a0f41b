"""FLOP and bytes of kernels, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.kernels import passes
from towtank.kernels.counts import (
    BYTES_PER_ELEMENT,
    adam_bytes_per_parameter,
    attention_flop,
    matmul_bytes,
    matmul_flop,
    mean_keys,
)
from towtank.kernels.passes import Passes

SIZE = st.integers(1, 1 << 16)


def test_a_matmul():
    # 2 x 3 by 3 x 5: 30 multiplies and 30 adds; 6 + 15 + 10 elements
    assert matmul_flop(2, 5, 3) == 60
    assert matmul_bytes(2, 5, 3, 2.0, 4.0) == (6 + 15) * 2 + 10 * 4
    assert matmul_flop(2, 5, 3, batch=7) == 7 * 60
    assert matmul_bytes(2, 5, 3, 2.0, 2.0, batch=7) == 7 * 62


@given(SIZE, SIZE, SIZE)
def test_the_three_multiplies_of_a_layer_do_the_same_work(m, n, k):
    assert matmul_flop(m, n, k) == matmul_flop(m, k, n) == matmul_flop(n, k, m)


def test_attention():
    # 1 sequence, 4 heads, 8 queries, 8 keys, widths 16 and 16: two products of 2 x 8 x 8 x 16 a head
    assert attention_flop(1, 8, 8, 4, 16, 16) == 4 * 2 * (2 * 8 * 8 * 16)
    assert attention_flop(1, 8, 4, 4, 16, 16) == attention_flop(1, 8, 8, 4, 16, 16) / 2


@pytest.mark.parametrize(
    "sequence, window, causal, keys",
    [
        (1024, None, False, 1024),
        (1024, None, True, 512),
        (1024, 4096, True, 512),
        (1024, 256, False, 256),
        # of the first 256 queries the mean is 128, of the other 768 it is 256: (256 x 128 + 768 x 256) / 1024
        (1024, 256, True, 224),
    ],
)
def test_mean_keys(sequence, window, causal, keys):
    assert mean_keys(sequence, window, causal) == keys


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20), st.booleans())
def test_a_window_never_shows_more(sequence, window, causal):
    assert 0 < mean_keys(sequence, window, causal) <= mean_keys(sequence, None, causal)


def test_adam():
    # fp32 gradient 4, master read and written 8, two moments read and written 16, bf16 weight written 2
    assert adam_bytes_per_parameter(4, 4, 2) == 30
    # without master the weight itself is read and written
    assert adam_bytes_per_parameter(2, 0, 2) == 2 + 4 + 16


def test_narrow_formats_carry_their_scales():
    assert BYTES_PER_ELEMENT["mxfp8"] == 1 + 1 / 32
    assert BYTES_PER_ELEMENT["nvfp4"] == 0.5 + 1 / 16


@pytest.mark.parametrize("name", [name for name in dir(passes) if isinstance(getattr(passes, name), Passes)])
def test_a_fused_kernel_moves_no_more(name):
    one = getattr(passes, name)
    # a metric has no gradient
    assert one.forward > 0 and (one.backward > 0) == (name != "CROSS_ENTROPY_METRIC")
    if name.endswith("_FUSED") and not name.endswith("UNFUSED"):
        eager = getattr(passes, name.removesuffix("FUSED") + "UNFUSED")
        assert one.forward <= eager.forward and one.backward <= eager.backward
        assert one.forward_launches <= eager.forward_launches
