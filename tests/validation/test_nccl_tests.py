"""Text of nccl-tests in its versions, and what is wrong with files."""

import pytest

from towtank.validation.nccl_tests import BenchmarkFileError, parse_benchmark

NEW = """\
# nccl-tests version 2.17.6 nccl-headers=22807 nccl-library=22807
# Collective test starting: all_gather_perf
# nThread 1 nGpus 1 minBytes 512 maxBytes 1024 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0
#
# Using devices
#  Rank  0 Group  0 Pid  10 on   node-a device  0 [0000:01:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid  11 on   node-b device  0 [0000:01:00] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
           0             0     float    none      -1     5.70    0.00    0.00      0     5.54    0.00    0.00      0
         512            64     float    none      -1    20.00    0.03    0.01      0    1.9e1    0.03    0.01      3
        1024           128     float    none      -1    21.00    0.05    0.02    N/A    20.00    0.05    0.03    N/A
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 0.0170
"""  # noqa: E501
OLD = """\
# nThread 1 nGpus 2 minBytes 8 maxBytes 134217728 step: 2(factor) warmup iters: 5 iters: 20 validation: 1
#   Rank  0 Pid   1320 on host1 device  0 [0x00] Tesla V100-SXM2-16GB
#   Rank  1 Pid   1320 on host1 device  1 [0x00] Tesla V100-SXM2-16GB
#       size         count      type   redop     time   algbw   busbw  error     time   algbw   busbw  error
#        (B)    (elements)                       (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
   134217728      33554432     float     sum   3298.6   40.69   40.69  0e+00   3070.3   43.72   43.72  0e+00
"""
NO_OPERATION = """\
#       size         count    type     time   algbw   busbw  error     time   algbw   busbw  error
       65536          8192   float    16.57    3.96    1.98  0e+00    13.83    4.74    2.37  0e+00
"""


def test_a_run_of_today() -> None:
    found = parse_benchmark(NEW)
    assert (found.collective, found.size, found.nodes) == ("all_gather", 2, 2)
    assert [row.num_bytes for row in found.rows] == [512, 1024]  # an empty message says nothing
    assert [row.time_s(False) for row in found.rows] == pytest.approx([20e-6, 21e-6])
    assert [row.time_s(True) for row in found.rows] == pytest.approx([19e-6, 20e-6])
    assert found.wrong == 1


def test_older_runs_have_fewer_columns() -> None:
    found = parse_benchmark(OLD)
    # two devices: bus is algorithm bandwidth times 2 (n - 1) / n = 1 for all-reduce, 1/2 for the others
    assert (found.collective, found.size, found.nodes) == ("all_reduce", 2, 1)
    assert found.rows[0].out_of_place_s == pytest.approx(3298.6e-6)
    assert found.rows[0].in_place_s == pytest.approx(3070.3e-6)
    bare = parse_benchmark(NO_OPERATION)
    assert (bare.collective, bare.size, bare.nodes) == (None, None, None)
    assert bare.rows[0].out_of_place_s == pytest.approx(16.57e-6)


def test_half_the_bus_bandwidth_is_no_all_reduce() -> None:
    assert parse_benchmark(OLD.replace("40.69   40.69", "40.69   20.35")).collective is None


def test_prefixes_of_mpirun_are_no_matter() -> None:
    prefixed = "\n".join(f"[1,0]<stdout>:{line}" for line in NEW.splitlines())
    assert parse_benchmark(prefixed) == parse_benchmark(NEW)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("hello\n", ["no rows of nccl-tests"]),
        (NEW.replace("all_gather_perf", "alltoall_perf"), ["alltoall is not predicted", "all_gather"]),
        (NEW.replace("Rank  1", "Rank  0"), ["a rank stands twice", "MPI=1"]),
        (NEW.replace("Rank  1 Group  0", "Rank  0 Group  1"), ["several groups"]),
        (NEW + NEW, ["a rank stands twice", "2 tables", "2 faults"]),
        (
            NEW + "# Collective test starting: all_reduce_perf\n",
            ["several benchmarks (all_gather, all_reduce)"],
        ),
        (NEW.replace("   0.05    0.02    N/A", ""), ["line 14 is cut off"]),
        (NEW.replace("20.00    0.03", "fast    0.03"), ["line 13 is cut off or has other columns"]),
    ],
)
def test_what_is_wrong_is_said(text: str, phrases: list[str]) -> None:
    with pytest.raises(BenchmarkFileError) as caught:
        parse_benchmark(text, "run.txt")
    for phrase in ("run.txt: ", *phrases):
        assert phrase in str(caught.value)


def test_figures_that_are_no_numbers_say_nothing() -> None:
    text = NEW.replace("1.9e1    0.03    0.01      3", "  inf     nan     nan    nan")
    assert text != NEW
    row = parse_benchmark(text).rows[0]
    assert (row.num_bytes, row.in_place_s, row.wrong) == (512, None, 0)
    assert row.out_of_place_s == pytest.approx(20e-6)
