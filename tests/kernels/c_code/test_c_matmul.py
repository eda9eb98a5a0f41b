"""Generated C against products worked out otherwise: block remainders, strides, threads, and a missing compiler."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.kernels.c_code import compiler
from towtank.kernels.c_code.compiler import Target, here
from towtank.kernels.c_code.source import source
from towtank.kernels.c_code.tiles import default, register_blocks, space
from towtank.kernels.errors import KernelError
from towtank.kernels.registry import kernels

torch = pytest.importorskip("torch")
AVX2 = Target("cc", "1", "-march=native", 8, 16)
AVX512 = Target("cc", "1", "-march=native", 16, 32)


def product(a, b, **changes):
    from towtank.kernels.c_code.matmul import multiply

    out = torch.full((a.shape[0], b.shape[1]), float("nan"))
    multiply(a, b, out, {**default(here(), 1), **changes})
    return out


def test_product_worked_out_by_hand():
    found = product(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0, 7.0], [0.0, -1.0, 2.0]]))
    assert found.tolist() == [[5.0, 4.0, 11.0], [15.0, 14.0, 29.0]]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 90), st.integers(1, 60)),
    blocks=st.tuples(st.integers(6, 40), st.integers(1, 50), st.integers(16, 70)),
    pack=st.integers(0, 1),
    threads=st.integers(1, 3),
    transposed=st.tuples(st.booleans(), st.booleans()),
)
def test_integers_are_multiplied_exactly_whatever_blocks_and_strides(
    sizes, blocks, pack, threads, transposed
):
    (m, n, k), (mc, kc, nc) = sizes, blocks
    generator = torch.Generator().manual_seed(m * 10_000 + n * 100 + k)
    draw = [torch.randint(-9, 10, shape, generator=generator).float() for shape in ((m, k), (k, n))]
    a, b = (x.t().contiguous().t() if turn else x for x, turn in zip(draw, transposed, strict=True))
    found = product(a, b, mc=mc, kc=kc, nc=nc, pack_a=pack, threads=threads)
    assert torch.equal(found, (draw[0].double() @ draw[1].double()).float())


def test_rows_of_every_stride_and_a_sum_of_nothing():
    wide = torch.arange(120.0).reshape(6, 20)
    a, b = wide[::2, 1::3], wide[:, ::5].flip(0)[:6].t()[:, :5]
    assert torch.equal(product(a[:, :4], b), a[:, :4] @ b)
    assert product(torch.ones(3, 0), torch.ones(0, 5)).tolist() == [[0.0] * 5] * 3
    assert product(torch.ones(0, 4), torch.ones(4, 5)).shape == (0, 5)


def test_register_blocks_of_avx2_and_avx512():
    assert (6, 16) in register_blocks(AVX2)  # 12 accumulators, 2 vectors of B, 1 of A: 15 of 16
    assert (14, 32) not in register_blocks(AVX2)
    assert default(AVX2, 2) == {
        "mr": 6,
        "nr": 16,
        "mc": 192,
        "kc": 256,
        "nc": 4096,
        "pack_a": 1,
        "threads": 2,
    }
    assert (default(AVX512, 1)["mr"], default(AVX512, 1)["nr"]) == (14, 32)  # 28 + 2 + 1 of 32


def test_space_has_whole_vectors_and_no_tile_twice():
    tiles = space(AVX2, 1)
    assert len({tuple(tile.items()) for tile in tiles}) == len(tiles) > 800
    assert {tile["nr"] % 8 for tile in tiles} == {0}


def test_columns_that_are_no_whole_vectors_are_refused():
    with pytest.raises(ValueError, match="positive multiple of 8, got 6 x 12"):
        source(6, 12, 8)


def test_missing_compiler_is_one_clear_message(monkeypatch, tmp_path):
    backend = kernels()["matmul"].backend("c")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert backend.missing("cpu").startswith("no C compiler was found (cc, gcc, clang); install gcc or clang")
    monkeypatch.setenv("CC", "/opt/none/cc")
    assert backend.missing("cpu").startswith("the C compiler that CC names was not found: /opt/none/cc")
    assert "CPU only" in backend.missing("cuda")


def test_compiler_that_fails_is_named_with_its_first_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path))
    with pytest.raises(KernelError, match=r"failed: .*error: unknown type name"):
        compiler.build("nonsense here;")


def test_object_is_compiled_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path))
    code = "int answer(void) { return 42; }"
    assert compiler.build(code).answer() == 42
    monkeypatch.setattr(compiler, "_run", lambda command: pytest.fail(f"ran {command}"))
    assert compiler.build(code).answer() == 42
    assert len(list((tmp_path / "objects").iterdir())) == 1
