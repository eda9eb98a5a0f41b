"""Counts of the CPU model worked out by hand, and its judgement by recorded times of shapes that were left out."""

from dataclasses import replace
from itertools import islice, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.autotune.tiles.captures import Capture, Record, load, parse, shipped, to_bytes
from towtank.autotune.tiles.cpu_model import TERMS, Cpu, blocks, counts, seconds
from towtank.autotune.tiles.fit import fit, judge, left_out, recorded_cpu
from towtank.autotune.tiles.tuner import cpu_rates

CPU = Cpu(vector_floats=8, registers=16, l1_bytes=32 << 10, l2_bytes=512 << 10, l3_bytes=32 << 20)


def tile(**changes):
    return {"mr": 6, "nr": 16, "mc": 96, "kc": 256, "nc": 4096, "pack_a": 1, "threads": 1, **changes}


def test_blocks_are_equal_parts_of_whole_register_blocks():
    # 100 rows in blocks of at most 96: two of 50, rounded up to 9 x 6; 300 deep: two of 150; 40 columns: 3 x 16
    assert blocks({"m": 100, "n": 40, "k": 300}, tile()) == (54, 150, 48)


def test_counts_worked_out_by_hand():
    found = counts({"m": 100, "n": 40, "k": 300}, tile(), CPU)
    # rows in blocks of 54 and 46: 9 + 8 register blocks; 3 across; 2 deep; steps of 6 x 2 / 2 = 6 cycles
    assert found["calls"] == 17 * 3 * 2
    assert found["steps"] == 17 * 3 * 2 * 150 * 6
    assert found["updates"] == 17 * 3 * 2 * 12
    assert (found["pack_a"], found["pack_b"]) == (100 * 300, 40 * 300)
    # 46 rows of the second block are 7 x 6 and 4 more, 40 columns 2 x 16 and 8 more, all of them 300 deep
    assert found["pack_edge"] == (4 + 8) * 300
    assert found["a_in_place"] == 0
    assert found["spills"] == 0  # 12 accumulators, 2 vectors of B, 1 of A
    # A's block of 54 x 150 floats and two panels of 150 x 16 of B are 51,600 bytes: in the second cache
    assert (found["a_l2"], found["a_l3"]) == (102 * 6 * 150, 0)


def test_full_panels_have_no_edge_and_rows_in_place_are_counted():
    found = counts({"m": 96, "n": 64, "k": 10}, tile(pack_a=0), CPU)
    assert found["pack_edge"] == 0
    assert found["a_in_place"] == 16 * 4 * 6 * 10  # each of 16 x 4 register blocks reads 6 rows
    # each column block packs the rows that are left over anew
    assert counts({"m": 97, "n": 64, "k": 10}, tile(nc=32), CPU)["pack_edge"] == 2 * 1 * 10


def test_accumulators_that_do_not_fit_spill():
    found = counts({"m": 8, "n": 16, "k": 100}, tile(mr=8), CPU)
    assert found["spills"] == 1 * 100 * (8 * 2 + 2 + 1 - 16)


def test_rows_a_page_apart_drive_each_other_out_only_if_read_in_place():
    sizes = {"m": 96, "n": 64, "k": 1024}
    assert counts(sizes, tile(mr=12, nr=8, pack_a=0), CPU)["a_strided"] > 0
    assert counts(sizes, tile(mr=12, nr=8, pack_a=1), CPU)["a_strided"] == 0
    assert counts({**sizes, "k": 1000}, tile(mr=12, nr=8, pack_a=0), CPU)["a_strided"] == 0


def test_one_row_is_bound_by_the_latency_of_its_chain():
    # one vector: 4 cycles from each multiply-add to the next, but for what overlaps with the next block
    steps = counts({"m": 1, "n": 8, "k": 4096}, tile(mr=1, nr=8, kc=4096), CPU)["steps"]
    assert steps == pytest.approx(4096 * 4 / (1 + 256 / (4096 * 4)))


@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([1, 6, 14]), st.integers(1, 3)
)  # fmt: skip
def test_more_threads_never_cost_more_than_their_meetings_and_no_time_is_negative(m, n, k, rows, threads):
    sizes = {"m": m, "n": n, "k": k}
    one = seconds(sizes, tile(mr=rows, threads=1), CPU, cpu_rates())
    more = seconds(sizes, tile(mr=rows, threads=threads), CPU, cpu_rates())
    meetings = cpu_rates()["parallel"] * counts(sizes, tile(mr=rows), CPU)["parallel"]
    assert 0 < one / threads <= more * (1 + 1e-9)
    assert more <= one + meetings


def test_fit_finds_the_rates_that_made_the_times():
    rates = {name: 1e-10 * (place + 1) for place, name in enumerate(TERMS)}
    records = []
    for m, n, rows, depth, pack in product((70, 600), (100, 2048), (1, 4, 6, 12, 14), (64, 256), (0, 1)):
        sizes, one = {"m": m, "n": n, "k": 700}, tile(mr=rows, kc=depth, pack_a=pack)
        time = seconds(sizes, one, CPU, rates)
        records.append(Record(sizes, one, time, time))
    found = fit(records, CPU)
    for each in records:
        assert seconds(each.sizes, each.tile, CPU, found) == pytest.approx(each.least_s, rel=1e-6)


def test_capture_is_read_as_it_was_written():
    records = tuple(
        Record({"m": 1, "n": 2, "k": 3}, tile(mr=rows), 1.5e-3 * rows, 2e-3 * rows) for rows in (1, 2)
    )
    capture = Capture("Device: none.", records)
    assert parse(to_bytes(capture)) == capture


@pytest.mark.parametrize("name", shipped())
def test_model_orders_tiles_of_shapes_that_it_was_not_fitted_to(name):
    for part in left_out(load(name), recorded_cpu()):
        each = judge(*part)
        assert each.sample_correlation_least >= 0.7, each
        assert each.top <= 1.05, each
        assert each.sample_top <= 1.05, each
        assert each.sample_top_within >= 0.95, each


def test_shipped_rates_are_those_of_the_shipped_captures():
    capture = load(shipped()[0])
    expected = fit(capture.records, recorded_cpu())
    assert cpu_rates() == pytest.approx(expected, rel=1e-2, abs=1e-13)


def test_the_shape_that_is_judged_has_no_part_in_its_rates():
    capture = load(shipped()[0])
    first = capture.shapes()[0]
    slower = Capture(
        "",
        tuple(
            replace(each, least_s=each.least_s * (2 + each.tile["mr"]))
            if tuple(each.sizes.values()) == first
            else each
            for each in capture.records
        ),
    )
    (one, predicted, measured), (_, other_predicted, _) = islice(left_out(capture, recorded_cpu()), 2)
    (again, same, changed), (_, other_changed, _) = islice(left_out(slower, recorded_cpu()), 2)
    assert one == again == first
    assert same.tolist() == predicted.tolist() and changed.tolist() != measured.tolist()
    assert other_changed.tolist() != other_predicted.tolist()  # which is fitted to the first shape too


def test_predictions_that_know_nothing_miss_the_figures():
    for part in left_out(load(shipped()[0]), recorded_cpu()):
        shape, predicted, measured = part
        shuffled = predicted.copy()
        Random(5).shuffle(shuffled)
        each = judge(shape, shuffled, measured)
        assert abs(each.sample_correlation) < 0.3 and each.sample_correlation_least < 0
        assert each.sample_top_within < 0.95
