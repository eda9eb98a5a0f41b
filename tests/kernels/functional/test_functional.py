"""Differentiable operations are those of the references, on each backend."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from towtank.kernels import functional, launch
from towtank.kernels.adamw import adamw as adamw_reference
from towtank.kernels.attention import attention as attention_reference
from towtank.kernels.errors import KernelError
from towtank.kernels.functional import choice

# the interpreter of Triton computes with numpy, which warns of 0 over 0 in rows that are not stored
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOWTANK_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(launch, "_PASSED", set())
        patch.setattr(choice, "_CHOSEN", {})
        patch.setattr(choice, "_READY", {})
        yield


@pytest.fixture
def _unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations that are taken for proven: what is tested here is how they are put together."""
    monkeypatch.setattr(choice, "require", lambda *_: None)
    monkeypatch.setattr(choice, "_CHOSEN", {})


def _draw(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def _places(experts: torch.Tensor) -> torch.Tensor:
    return functional.moe_permute(torch.zeros(experts.shape[0], 1), experts, 4)[1]


EXPERTS = torch.tensor([[2, 0], [0, 3], [3, 2], [0, 2], [2, 3]])
OPERATIONS: dict[str, tuple[Callable[..., torch.Tensor], tuple[tuple[int, ...], ...]]] = {
    "matmul": (functional.matmul, ((2, 3, 5), (4, 5))),
    "grouped_matmul": (
        lambda x, w: functional.grouped_matmul(x, w, torch.tensor([2, 0, 3])), ((5, 3), (3, 4, 3)),
    ),
    "attention": (functional.attention, ((1, 3, 4, 4), (1, 3, 2, 4), (1, 3, 2, 4))),
    "attention, all keys": (
        lambda q, k, v: functional.attention(q, k, v, causal=False), ((1, 3, 1, 4), (1, 3, 1, 4), (1, 3, 1, 4)),
    ),
    "attention, window": (
        lambda q, k, v: functional.attention(q, k, v, window=3), ((1, 5, 2, 4), (1, 5, 1, 4), (1, 5, 1, 4)),
    ),
    "rms_norm": (functional.rms_norm, ((2, 3, 7), (7,))),
    "layer_norm": (lambda x, w, b: functional.layer_norm(x, w, b, 1e-6), ((3, 7), (7,), (7,))),
    "swiglu": (functional.swiglu, ((2, 3, 4), (2, 3, 4))),
    "gelu": (functional.gelu, ((3, 5),)),
    "rotary": (
        lambda x: functional.rotary(x, *functional.rotary_angles(torch.arange(4), 6, dtype=x.dtype)),
        ((2, 4, 3, 6),),
    ),
    "cross_entropy": (
        lambda z: functional.cross_entropy(z, torch.tensor([3, -100, 0, 6])), ((4, 7),),
    ),
    "cross_entropy over other rows": (
        lambda z: functional.cross_entropy(z, torch.tensor([3, -100, 0, 6]), 12), ((4, 7),),
    ),
    "moe_permute": (lambda x: functional.moe_permute(x, EXPERTS, 4)[0], ((5, 3),)),
    "moe_unpermute": (lambda rows, w: functional.moe_unpermute(rows, _places(EXPERTS), w), ((10, 3), (5, 2))),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_differences_in_float64(name: str) -> None:
    operation, shapes = OPERATIONS[name]
    assert torch.autograd.gradcheck(operation, tuple(_draw(*shape) for shape in shapes), fast_mode=True)


@pytest.mark.usefixtures("_unproven")
@pytest.mark.parametrize("name", OPERATIONS)
def test_triton_computes_what_the_library_does(name: str) -> None:
    operation, shapes = OPERATIONS[name]
    inputs = [_draw(*shape, dtype=torch.float32) for shape in shapes]
    found = []
    for backend in ("library", "triton"):
        with functional.using(backend):
            y = operation(*inputs)
            found.append((y.detach(), *torch.autograd.grad(y.square().sum(), inputs)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_unproven")
@pytest.mark.parametrize("backend", ["library", "triton"])
def test_blocks_of_keys_make_up_attention(backend: str) -> None:
    # a query of the second half sees the first half whole and its own half up to itself
    q, k, v, gradient = (torch.randn(2, 8, heads, 16) for heads in (4, 2, 2, 4))
    first, second = slice(0, 4), slice(4, 8)
    with functional.using(backend):
        blocks = [
            functional.attention_block(q[:, second], k[:, part], v[:, part], causal=part is second)
            for part in (first, second)
        ]
        sums = torch.logaddexp(blocks[0][1], blocks[1][1])
        output = sum((level - sums).exp().transpose(1, 2)[..., None] * part for part, level in blocks)
        backward = [
            functional.attention_block_backward(
                gradient[:, second], q[:, second], k[:, part], v[:, part], output, sums, causal=part is second
            )
            for part in (first, second)
        ]
    leaves = [each.double().requires_grad_() for each in (q, k, v)]
    sizes = {"causal": 1, "window": 0, "sequence": 8}
    expected, _ = attention_reference(leaves, sizes)
    of_q, of_k, of_v = torch.autograd.grad(expected[:, second], leaves, gradient[:, second].double())
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(output.double(), expected[:, second], **close)
    torch.testing.assert_close((backward[0][0] + backward[1][0]).double(), of_q[:, second], **close)
    torch.testing.assert_close(torch.cat([backward[0][1], backward[1][1]], 1).double(), of_k, **close)
    torch.testing.assert_close(torch.cat([backward[0][2], backward[1][2]], 1).double(), of_v, **close)


@pytest.mark.parametrize("step", [1, 7])
def test_adamw_in_float64(step: int) -> None:
    gradient, master, first = (torch.randn(4, 5, dtype=torch.float64) for _ in range(3))
    second = torch.rand(4, 5, dtype=torch.float64)
    corrections = (1 - 0.8**step, 1 - 0.95**step)
    settings = torch.tensor([1e-2, 0.8, 0.95, 1e-8, 0.1, step, *corrections], dtype=torch.float64)
    expected = adamw_reference((gradient, master, first, second, master, settings), {})
    functional.adamw(gradient, master, first, second, step=step, rate=1e-2, betas=(0.8, 0.95))
    for one, other in zip((master, first, second), expected, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-15)


@pytest.mark.usefixtures("_unproven")
@pytest.mark.parametrize("backend", ["library", "triton"])
def test_adamw_writes_the_weight_of_16_bits(backend: str) -> None:
    # by hand: m = 0.1, v = 0.05, corrected both to 1; 1 - 0.1 (1 / (1 + 1e-8)) - 0.1 x 0.5 x 1
    tensors = [torch.full((3,), each) for each in (1.0, 1.0, 0.0, 0.0)]
    weight = torch.zeros(3, dtype=torch.float16)
    gradient = tensors[0].half()
    with functional.using(backend):
        functional.adamw(gradient, *tensors[1:], weight, step=1, rate=0.1, decay=0.5)
    assert tensors[1].tolist() == pytest.approx([0.85] * 3, rel=1e-6)
    assert weight.tolist() == tensors[1].half().tolist()


@pytest.mark.usefixtures("_unproven")
@pytest.mark.parametrize("backend", ["library", "triton"])
def test_adamw_takes_tensors_however_they_lie(backend: str) -> None:
    gradient, *states = (torch.rand(4, 6).t() for _ in range(4))
    dense = [each.clone(memory_format=torch.contiguous_format) for each in (gradient, *states)]
    with functional.using(backend):
        functional.adamw(gradient, *states, step=3, rate=0.1)
        functional.adamw(*dense, step=3, rate=0.1)
    for one, other in zip(states, dense[1:], strict=True):
        torch.testing.assert_close(one, other)


def test_heads_that_share_no_keys_are_refused() -> None:
    q, k = torch.ones(1, 2, 3, 4), torch.ones(1, 2, 2, 4)
    with pytest.raises(ValueError, match="heads must be a multiple of kv heads, got 3 and 2"):
        functional.attention(q, k, k)


def test_plain_gradients_of_a_multiply() -> None:
    x, weight = _draw(2, 3, 5), _draw(4, 5)
    y = functional.matmul(x, weight)
    gradient = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, weight), gradient)
    torch.testing.assert_close(functional.matmul_dgrad(gradient, weight), expected[0])
    torch.testing.assert_close(functional.matmul_wgrad(gradient, x), expected[1])


def test_angles_are_those_of_the_positions() -> None:
    whole = functional.rotary_angles(torch.arange(8), 6)
    part = functional.rotary_angles(torch.arange(4, 8), 6)
    assert torch.equal(whole[0][4:], part[0])
    assert float(part[1][0, 1]) == pytest.approx(math.sin(4 * 10000 ** (-2 / 6)), rel=1e-6)


def test_what_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def require(kernel, backend, *_):
        if backend.name == "triton":
            raise KernelError("wrong on this device")

    monkeypatch.setattr(choice, "require", require)
    monkeypatch.setattr(choice, "find", lambda name, backend, device: launch.find(name, backend, "cpu"))
    monkeypatch.setattr(choice, "_CHOSEN", {})
    assert functional.backend_of("swiglu", torch.float32, "cuda") == "library"
    with functional.using("triton"), pytest.raises(KernelError, match="wrong on this device"):
        functional.backend_of("swiglu", torch.float32, "cuda")
    monkeypatch.setattr(choice, "require", lambda *_: None)
    # a GPU's own libraries multiply; what takes them several kernels is one of ours, where it has the precision
    assert functional.backend_of("gelu", torch.bfloat16, "cuda") == "triton"
    assert functional.backend_of("matmul", torch.bfloat16, "cuda") == "library"
    assert functional.backend_of("gelu", torch.float64, "cuda") == "library"


def test_a_model_is_proven_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path))
    monkeypatch.setattr(launch, "_PASSED", set())
    monkeypatch.setattr(choice, "_CHOSEN", {})
    assert functional.prove(torch.float32, "cpu", ("swiglu",)) == {"swiglu": "library"}
    assert {each.kernel for each in launch.recorded("cpu")} == {"swiglu", "swiglu_backward"}
