"""A backend of ours against the library, measured in turn: what tuning is for.

Of attention the library is the fastest of PyTorch's implementations for the case.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towtank.kernels.bench import bound_call, inputs_for, sizes_text
from towtank.kernels.cache import Question, best_tile
from towtank.kernels.launch import require
from towtank.kernels.records import Kernel, Sizes
from towtank.kernels.registry import kernels
from towtank.kernels.timing import Call, timings

if TYPE_CHECKING:
    import torch

SAMPLES = 25
IMPLEMENTATIONS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
"""Of attention on GPUs, by PyTorch's names."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is compared."""

    kernel: str
    dtype: str
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class Comparison:
    """Median seconds of both."""

    kernel: str
    dtype: str
    sizes: str
    backend: str
    tile: str
    seconds: float
    library: str
    """Which of the library's implementations was the fastest."""
    library_seconds: float
    flop: float

    @property
    def speed(self) -> float:
        """Speed over that of the library."""
        return self.library_seconds / self.seconds


def usual_problems(device: str) -> list[Problem]:
    """Large multiplies and attention on a GPU; square, tall and wide products on a CPU."""
    if device == "cpu":
        squares = [(n, n, n) for n in (512, 1024, 2048)]
        tall = [(2048, 256, 512), (4096, 64, 512), (768, 768, 3072)]
        wide = [(128, 3072, 768), (64, 1024, 2048), (256, 2304, 768)]
        return [
            Problem("matmul", "float32", dict(zip("mnk", shape, strict=True)))
            for shape in (*squares, *tall, *wide)
        ]
    found = [
        Problem(name, dtype, dict.fromkeys("mnk", size))
        for name, dtype in (("matmul", "bfloat16"), ("fp8_matmul", "float8_e4m3fn"))
        for size in (4096, 6144, 8192)
    ]
    for name in ("attention", "attention_backward"):
        for head_dim, sequence in ((64, 4096), (128, 4096), (128, 8192)):
            sizes = {"batch": 2, "sequence": sequence, "heads": 32, "kv_heads": 32, "head_dim": head_dim}
            found.append(Problem(name, "bfloat16", sizes))
    return found


def compare(
    problems: Sequence[Problem],
    backend: str,
    device: str,
    *,
    budget_s: float = 5.0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Iterator[Comparison]:
    """Time every problem by its tuned tile, and by the library.

    Raises:
        KernelError: a variant is wrong on this device.
    """
    for number, problem in enumerate(problems, 1):
        progress(number, len(problems), f"{problem.kernel} {sizes_text(problem.sizes)}")
        yield _compared(problem, backend, device, budget_s)


def _compared(problem: Problem, backend: str, device: str, budget_s: float) -> Comparison:
    kernel = kernels()[problem.kernel]
    sizes = {**kernel.options, **problem.sizes}
    own = kernel.backend(backend)
    question = Question(kernel.name, backend, problem.dtype, problem.sizes, device)
    tile = best_tile(question, own.tiles(sizes, problem.dtype))
    require(kernel, own, problem.dtype, tile, device)
    inputs = inputs_for(kernel, sizes, problem.dtype, device)
    calls = _library_calls(kernel, problem.dtype, inputs, sizes, device)
    timed = [bound_call(own, inputs, sizes, tile, device), *calls.values()]
    first, *others = timings(timed, device, samples=SAMPLES, budget_s=budget_s, settle=True)
    medians = dict(zip(calls, (each.median_s for each in others), strict=True))
    fastest = min(medians, key=medians.__getitem__)
    return Comparison(
        kernel.name, problem.dtype, sizes_text(problem.sizes), backend, sizes_text(tile),
        first.median_s, fastest, medians[fastest], kernel.cost(sizes, problem.dtype).flop,
    )  # fmt: skip


def _library_calls(
    kernel: Kernel, dtype: str, inputs: "Sequence[torch.Tensor]", sizes: Sizes, device: str
) -> dict[str, Call]:
    """The library's default variant, or on a GPU each of its implementations of attention that takes the case."""
    library = kernel.backend("library")
    tile = library.tiles(sizes, dtype)[0]
    require(kernel, library, dtype, tile, device)
    usual = bound_call(library, inputs, sizes, tile, device)
    if device == "cpu" or not kernel.name.startswith("attention"):
        return {"library": usual}
    found: dict[str, Call] = {"library": usual}
    for name in IMPLEMENTATIONS:
        call = _forced(name, lambda: bound_call(library, inputs, sizes, tile, device))
        try:
            call()
        except RuntimeError:  # it does not take these sizes, or was left out of this build
            continue
        found[name.removesuffix("_ATTENTION").lower()] = call
    return found


def _forced(name: str, bind: Callable[[], Call]) -> Call:
    """A call within one of PyTorch's implementations; of a backward pass the forward pass is run within it, once."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    bound: list[Call] = []

    def call() -> object:
        with sdpa_kernel(getattr(SDPBackend, name)):
            if not bound:
                bound.append(bind())
            return bound[0]()

    return call
