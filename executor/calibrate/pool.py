"""Processes that measure together: as many as asked for at work at once, the others asleep."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from signal import Signals
from typing import TYPE_CHECKING, Any

from towtank.executor.calibrate.calls import Call, collective_call, kernel_call, trips
from towtank.executor.calibrate.points import CollectivePoint, KernelPoint
from towtank.executor.calibrate.steps import Steps, train
from towtank.executor.errors import ExecutorError
from towtank.executor.launching.ports import free_port
from towtank.executor.measured.host_memory import keep_freed_memory, merging_children

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from towtank.executor.measured.gather import Gathered
    from towtank.executor.settings import RunSettings

Point = KernelPoint | CollectivePoint
_WAIT_S = 300.0
"""Seconds without an answer after which a worker is taken for lost; of training, for each step."""
_LOOK_S = 1.0
_CLOSING_S = 10.0
_MOMENT_S = 3.0


class CalibrationError(ExecutorError):
    """A calibration cannot be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Order:
    """Measure points with `processes` at work at once, each with so many threads."""

    points: tuple[Point, ...]
    threads: int
    processes: int
    window_s: float
    repeats: int


@dataclass(frozen=True, slots=True)
class _Rejoin:
    """Make the group of all processes anew: training leaves a process in that of its plan."""

    port: int


class Pool:
    """Worker processes joined by a process group."""

    def __init__(self, counts: Sequence[int], device_type: str) -> None:
        """Start as many workers as the largest of `counts`.

        Raises:
            CalibrationError: a worker does not start.
        """
        self._counts = tuple(counts)
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        self._together = True
        """Whether all processes are in one group."""
        try:
            self._start(max(counts), device_type)
        except BaseException:
            self.close(0.0)
            raise

    def _start(self, world: int, device_type: str) -> None:
        context, port = get_context("spawn"), free_port()
        for rank in range(world):
            here, there = context.Pipe()
            process = context.Process(
                target=_work, args=(there, rank, world, self._counts, port, device_type), daemon=True
            )
            with merging_children():
                process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        self._answers(range(world), _WAIT_S)

    def measure(self, order: Order) -> list[float]:
        """Seconds of one call of each point: median of repeats, mean over the processes.

        Raises:
            CalibrationError: a worker failed.
        """
        if not self._together:
            self._ask(range(len(self._pipes)), _Rejoin(free_port()), _WAIT_S)
            self._together = True
        found: list[list[float]] = self._ask(range(order.processes), order, _WAIT_S)
        return [sum(each) / len(each) for each in zip(*found, strict=True)]

    def train(self, settings: RunSettings, threads: int, steps: int, warm_up: int) -> Gathered:
        """Real steps with one process for each device of the plan.

        Raises:
            CalibrationError: a worker failed.
        """
        self._together = False
        order = Steps(settings, threads, steps, warm_up, free_port())
        patience_s = _WAIT_S * (steps + warm_up)
        found: list[Gathered | None] = self._ask(range(settings.plan.num_devices), order, patience_s)
        assert found[0] is not None  # rank 0 collects
        return found[0]

    def _ask(self, ranks: Sequence[int], order: Order | Steps | _Rejoin, patience_s: float) -> list[Any]:
        """Give all an order, then take their answers."""
        for rank in ranks:
            with suppress(OSError):  # a process that has ended has no answer either
                self._pipes[rank].send(order)
        return self._answers(ranks, patience_s)

    def _answers(self, ranks: Sequence[int], patience_s: float) -> list[Any]:
        end = time.monotonic() + patience_s
        return [self._answer(rank, end, patience_s) for rank in ranks]

    def _answer(self, rank: int, end: float, patience_s: float) -> Any:
        pipe = self._pipes[rank]
        while not pipe.poll(_LOOK_S):
            self._check_ended()
            if time.monotonic() > end:
                raise CalibrationError(f"process {rank} has not answered for {patience_s:.0f} s; try again")
        try:
            answer = pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._processes[rank].join(_CLOSING_S)
            self._check_ended()
            raise CalibrationError(f"process {rank} ended without an answer") from error
        if isinstance(answer, str):
            self._wait_for_ended()
            raise CalibrationError(f"process {rank}: {answer}")
        return answer

    def _wait_for_ended(self) -> None:
        """Raise CalibrationError for a worker that has been ended: the others only tell that they have lost it, and
        may do so a moment before the system tells of its end."""
        end = time.monotonic() + _MOMENT_S
        while time.monotonic() < end:
            self._check_ended()
            time.sleep(0.05)

    def _check_ended(self) -> None:
        """Raise CalibrationError if a worker has been ended, which is no way of its own."""
        for rank, process in enumerate(self._processes):
            if process.exitcode:
                raise CalibrationError(
                    f"process {rank} was ended by {_how(process.exitcode)} (out of memory?); use fewer processes"
                )

    def close(self, patience_s: float = _CLOSING_S) -> None:
        """End the workers, and whoever is still there after so many seconds by force."""
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
        end = time.monotonic() + patience_s
        for process in self._processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # after a fault the others wait in a collective
        self.close(_CLOSING_S if kind is None else 0.0)


def _how(code: int) -> str:
    """Ending of a process by its exit code; the negative ones are signals."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"signal {Signals(-code).name}"
    return f"signal {-code}"


def _work(
    pipe: Connection,
    rank: int,
    world: int,
    counts: tuple[int, ...],
    port: int,
    device_type: str,
) -> None:
    """Life of a worker: join the group, then do what comes until None comes."""
    from towtank.executor.launching.rank import leave

    # names of torch.distributed change from release to release
    warnings.simplefilter("ignore", FutureWarning)
    try:
        worker = _Worker(rank, world, counts, port, device_type)
        pipe.send([])
        while (order := pipe.recv()) is not None:
            pipe.send(worker.obey(order))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception as error:
        with suppress(OSError):
            pipe.send(f"{type(error).__name__}: {error}")
    leave(0)


class _Worker:
    def __init__(self, rank: int, world: int, counts: tuple[int, ...], port: int, device_type: str) -> None:
        import torch

        keep_freed_memory()
        torch.manual_seed(rank)
        self.device = "cpu" if device_type == "cpu" else f"cuda:{rank}"
        if device_type != "cpu":
            torch.cuda.set_device(rank)
        self.rank = rank
        self.device_type, self.world, self.counts, self.port = device_type, world, counts, port
        self.groups: dict[tuple[int, int], Any] = {}
        self._join(world, port)
        self._make_groups()

    def _join(self, world: int, port: int) -> None:
        """Meet the first `world` processes; leave whatever this one was in."""
        import torch.distributed as dist

        self.groups = {}
        if dist.is_initialized():
            dist.destroy_process_group()
        if world > 1:
            backend = "gloo" if self.device_type == "cpu" else "cpu:gloo,cuda:nccl"
            address = f"tcp://127.0.0.1:{port}"
            dist.init_process_group(backend, init_method=address, rank=self.rank, world_size=world)

    def _make_groups(self) -> None:
        import torch.distributed as dist

        for size in self.counts if self.world > 1 else ():
            for first in range(0, self.world - size + 1, size):
                group = dist.new_group(list(range(first, first + size)))
                if first <= self.rank < first + size:
                    self.groups[size, first] = group

    def obey(self, order: Order | Steps | _Rejoin) -> Any:
        """The answer to an order."""
        if isinstance(order, Steps):
            return self.train(order)
        if isinstance(order, Order):
            return self.measure(order)
        self._join(self.world, order.port)
        self._make_groups()
        return []

    def train(self, order: Steps) -> Any:
        """Real steps."""
        import torch

        torch.set_num_threads(order.threads)
        self._join(order.settings.plan.num_devices, order.port)
        return train(order, torch.device(self.device))

    def measure(self, order: Order) -> list[float]:
        """Median seconds of one call of each point."""
        import torch

        torch.set_num_threads(order.threads)
        return [self._one(point, order) for point in order.points]

    def _one(self, point: Point, order: Order) -> float:
        if isinstance(point, CollectivePoint):
            first = self.rank // point.size * point.size
            group = self.groups[point.size, first]
            call = collective_call(point, group, self.rank - first, self.device)
            return self._collective(call, point, order)
        call = kernel_call(point, self.device)
        call()
        found = []
        for _ in range(order.repeats):
            self._meet(order.processes)
            found.append(self._window(call, order.window_s))
        return sorted(found)[len(found) // 2]

    def _meet(self, processes: int) -> None:
        """Begin together."""
        import torch.distributed as dist

        if processes > 1:
            dist.barrier(group=self.groups[processes, 0])

    def _window(self, call: Call, window_s: float) -> float:
        """Seconds of one call while a window lasts."""
        import torch

        number, begin = 0, time.perf_counter()
        while True:
            call()
            number += 1
            if self.device != "cpu" and number % 8 == 0:
                torch.cuda.synchronize()
            spent = time.perf_counter() - begin
            if spent >= window_s:
                break
        if self.device != "cpu":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / number

    def _collective(self, call: Call, point: CollectivePoint, order: Order) -> float:
        """Seconds of one operation. All members must call it as often: rank 0 decides how often."""
        import torch
        import torch.distributed as dist

        call()
        group = self.groups[order.processes, 0]
        number = torch.ones(1, device=self.device)
        begin = time.perf_counter()
        call()
        number[0] = max(1.0, min(200.0, order.window_s / max(time.perf_counter() - begin, 1e-6)))
        dist.broadcast(number, group_src=0, group=group)
        found = []
        for _ in range(order.repeats):
            self._meet(order.processes)
            begin = time.perf_counter()
            for _ in range(int(number.item())):
                call()
            if self.device != "cpu":
                torch.cuda.synchronize()
            found.append((time.perf_counter() - begin) / int(number.item()) / trips(point.collective))
        return sorted(found)[len(found) // 2]
