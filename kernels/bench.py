"""Measuring the points of a sweep, as rows of a table that stands for itself: device, date and software in each."""

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from towtank.kernels.cache import Question, best_tile
from towtank.kernels.device import device_name, hardware_name, memory_bytes, software
from towtank.kernels.errors import KernelError, TooLargeError
from towtank.kernels.gradients import ThroughAutograd
from towtank.kernels.launch import empty, fresh_seed, require
from towtank.kernels.records import DTYPE_BYTES, Backend, Cost, Kernel, Sizes, Tile
from towtank.kernels.registry import kernels
from towtank.kernels.sweeps import Point
from towtank.kernels.timing import Call, timings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of a table of measurements."""

    kind: str
    kernel: str
    backend: str
    dtype: str
    sizes: str
    """Such as `m=512 n=1024 k=256`."""
    tile: str
    """Such as `swap=0`; empty where there is none."""
    median_s: float
    least_s: float
    samples: int
    flop: float
    bytes: float
    device_type: str
    device: str
    software: str
    date: str


COLUMNS = tuple(each.name for each in fields(Measurement))


def sizes_text(sizes: Sizes) -> str:
    """Sizes as one cell of the table."""
    return " ".join(f"{name}={value}" for name, value in sizes.items())


def sizes_of(text: str) -> dict[str, int]:
    """Sizes from a cell of the table."""
    return {name: int(value) for name, value in (each.split("=") for each in text.split())}


def measure(
    points: Sequence[Point],
    device: str,
    *,
    backend: str = "library",
    budget_s: float = 1.0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    skipped: Callable[[Point, str], None] | None = None,
) -> Iterator[Measurement]:
    """Measure one point after the other, by a variant that has been validated on this device.

    Args:
        points: what to measure.
        device: device type, cpu or cuda.
        backend: of the kernels.
        budget_s: bound of the time for the samples of one point.
        progress: called before each point with its number, how many there are, and what it is.
        skipped: called with a point that cannot be measured and why: its variant is wrong, or memory is short.

    Raises:
        KernelError: a variant is wrong on this device and nobody is told by `skipped`.
    """
    import torch

    wrong: dict[tuple[str, str], str] = {}
    for number, point in enumerate(points, 1):
        progress(number, len(points), f"{point.kernel} {point.dtype} {sizes_text(point.sizes)}")
        variant = (point.kernel, point.dtype)
        try:
            if variant in wrong:  # it is not tried again at every size
                raise KernelError(wrong[variant])
            with torch.no_grad():
                yield _measured(point, device, backend, budget_s)
        except KernelError as error:
            if not isinstance(error, TooLargeError):
                wrong[variant] = str(error)
            if skipped is None:
                raise
            skipped(point, str(error))
        except torch.OutOfMemoryError:
            if skipped is None:
                raise
            skipped(point, f"{point.kernel} {point.dtype} {sizes_text(point.sizes)}: memory is short")


def _measured(point: Point, device: str, backend: str, budget_s: float) -> Measurement:
    call, cost, by, tile = _prepared(point, device, backend)
    (timing,) = timings([call], device, budget_s=budget_s)
    return Measurement(
        point.kind, point.kernel, by, point.dtype, sizes_text(point.sizes), sizes_text(tile),
        timing.median_s, timing.least_s, timing.samples, cost.flop, cost.bytes,
        device, device_name(device), software(device), datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip


def _prepared(point: Point, device: str, backend: str) -> tuple[Call, Cost, str, Tile]:
    """What to time, what it costs, and by which backend and tile."""
    if point.kind in ("launch", "copy"):
        return (*_plain(point, device), "library", {})
    kernel = kernels()[point.kernel]
    chosen = kernel.backend(backend)
    sizes = {**kernel.options, **point.sizes}
    question = Question(kernel.name, backend, point.dtype, sizes, device)
    tile = best_tile(question, chosen.tiles(sizes, point.dtype))
    require(kernel, chosen, point.dtype, tile, device)
    call = prepared_call(kernel, chosen, sizes, point.dtype, tile, device)
    return call, kernel.cost(sizes, point.dtype), backend, tile


def prepared_call(
    kernel: Kernel, backend: Backend, sizes: Sizes, dtype: str, tile: Tile, device: str
) -> Call:
    """A call on fresh random inputs; of a backward pass by autograd, the backward pass alone."""
    inputs = inputs_for(kernel, sizes, dtype, device)
    return bound_call(backend, inputs, sizes, tile, device)


def inputs_for(kernel: Kernel, sizes: Sizes, dtype: str, device: str) -> "tuple[torch.Tensor, ...]":
    """Random inputs of a kernel, from another seed each time.

    Raises:
        TooLargeError: the device's memory does not hold inputs and outputs.
    """
    import torch

    needed, there = kernel.cost({**kernel.options, **sizes}, dtype).bytes, memory_bytes(device)
    if needed > there:
        raise TooLargeError(
            f"{kernel.name} {sizes_text(sizes)} in {dtype} needs {needed / 1e9:,.1f} GB for inputs and outputs, but "
            f"{hardware_name(device)} has {there / 1e9:,.1f} GB; choose smaller sizes"
        )
    generator = torch.Generator(device).manual_seed(fresh_seed())
    return kernel.inputs(sizes, getattr(torch, dtype), generator)


def bound_call(
    backend: Backend, inputs: "Sequence[torch.Tensor]", sizes: Sizes, tile: Tile, device: str
) -> Call:
    """A call of a backend on given inputs."""
    launch = backend.load()
    if isinstance(launch, ThroughAutograd):
        return launch.prepared(inputs, sizes)
    allocate = empty(device)
    return lambda: launch(inputs, sizes, tile, allocate)


def _plain(point: Point, device: str) -> tuple[Call, Cost]:
    """A copy of memory, or a kernel that does nothing to speak of."""
    import torch

    dtype, elements = getattr(torch, point.dtype), point.sizes["elements"]
    source = torch.zeros(elements, dtype=dtype, device=device)
    if point.kind == "launch":
        return (lambda: source.fill_(0)), Cost(0.0, elements * DTYPE_BYTES[point.dtype])
    target = torch.empty_like(source)
    return (lambda: target.copy_(source)), Cost(0.0, 2.0 * elements * DTYPE_BYTES[point.dtype])
