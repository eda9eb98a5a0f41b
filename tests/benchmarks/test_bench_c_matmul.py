"""The generated C multiply against torch.mm, in turn in one process: one core and two, square, tall and wide."""

import time
from statistics import median

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.benchmark
SHAPES = (
    *((n, n, n) for n in (512, 768, 1024, 1536, 2048)),
    (4096, 768, 768), (8192, 1024, 256), (2048, 64, 1024), (128, 3072, 768), (64, 4096, 1024), (256, 50304, 256),
)  # fmt: skip
"""m x n x k: squares; tall ones: tokens by hidden size, by a narrow head; wide ones: few tokens by feed-forward, and
by a vocabulary."""
PAIRS = 15
REST_S = 0.002
"""Between calls: threads of the one before that still spin take no part in the next."""


def ratios(m, n, k, threads):
    """torch.mm's time over ours, call by call in turn."""
    from towtank.kernels.c_code.compiler import here
    from towtank.kernels.c_code.matmul import multiply
    from towtank.kernels.c_code.tiles import default
    from towtank.kernels.cache import Question, best_tile

    torch.set_num_threads(threads)
    question = Question("matmul", "c", "float32", {"m": m, "n": n, "k": k}, "cpu")
    tile = best_tile(question, [default(here(), threads)])
    x, weight, out = torch.randn(m, k), torch.randn(n, k), torch.empty(m, n)
    calls = (lambda: torch.mm(x, weight.t(), out=out), lambda: multiply(x, weight.t(), out, tile))
    found = []
    for _ in range(PAIRS):
        pair = []
        for call in calls:
            time.sleep(REST_S)
            call()
            start = time.perf_counter()
            call()
            pair.append(time.perf_counter() - start)
        found.append(pair)
    flop = 2 * m * n * k / 1e9
    library, own = (median(column) for column in zip(*found, strict=True))
    return median(one / other for one, other in found), flop / library, flop / own


@pytest.mark.parametrize("threads", [1, 2])
def test_generated_c_against_torch(benchmark, threads, capsys):
    before = torch.get_num_threads()
    try:
        rows = benchmark.pedantic(lambda: {shape: ratios(*shape, threads) for shape in SHAPES}, rounds=1)
    finally:
        torch.set_num_threads(before)
    with capsys.disabled():
        print(f"\n{threads} thread(s): speed of C over torch.mm by pairs, GFLOP/s of torch.mm and of C")
        for shape, (ratio, library, own) in rows.items():
            print(f"{'x'.join(map(str, shape)):15} {ratio:5.2f} {library:7.1f} {own:7.1f}")
        overall = [ratio for ratio, _, _ in rows.values()]
        print(f"median {median(overall):.2f}, least {min(overall):.2f}")
    assert len(rows) == len(SHAPES)
