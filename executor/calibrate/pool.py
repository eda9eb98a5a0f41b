"""Processes that measure together: as many as asked for at work at once, the others asleep."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from towtank.executor.calibrate.calls import Call, collective_call, kernel_call, trips
from towtank.executor.calibrate.points import CollectivePoint, KernelPoint
from towtank.executor.calibrate.steps import Steps, train
from towtank.executor.errors import ExecutorError
from towtank.executor.measured.host_memory import keep_freed_memory, merging_children

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from towtank.executor.measured.gather import Gathered
    from towtank.executor.settings import RunSettings

Point = KernelPoint | CollectivePoint
_WAIT_S = 300.0
"""Seconds without an answer after which a worker is taken for lost."""


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


class Pool:
    """Worker processes joined by a process group."""

    def __init__(self, counts: Sequence[int], device_type: str) -> None:
        """Start as many workers as the largest of `counts`.

        Raises:
            CalibrationError: a worker does not start.
        """
        self._counts = tuple(counts)
        context = get_context("spawn")
        port = _free_port()
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        world = max(counts)
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
        for rank in range(world):
            self._answer(rank)

    def measure(self, order: Order) -> list[float]:
        """Seconds of one call of each point: median of repeats, mean over the processes.

        Raises:
            CalibrationError: a worker failed.
        """
        active = range(order.processes)
        for rank in active:
            self._pipes[rank].send(order)
        found = [self._answer(rank) for rank in active]
        return [sum(each) / len(each) for each in zip(*found, strict=True)]

    def train(self, settings: RunSettings, threads: int, steps: int, warm_up: int) -> Gathered:
        """Real steps with one process for each device of the plan.

        Raises:
            CalibrationError: a worker failed.
        """
        active = range(settings.plan.num_devices)
        order = Steps(settings, threads, steps, warm_up, _free_port())
        for rank in active:
            self._pipes[rank].send(order)
        found: list[Gathered | None] = [self._answer(rank) for rank in active]
        assert found[0] is not None  # rank 0 collects
        return found[0]

    def _answer(self, rank: int) -> Any:
        pipe = self._pipes[rank]
        try:
            if not pipe.poll(_WAIT_S):
                raise CalibrationError(f"process {rank} does not answer for {_WAIT_S:.0f} s; try again")
            answer = pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise CalibrationError(
                f"process {rank} ended (out of memory?); use fewer processes with --processes"
            ) from error
        if isinstance(answer, str):
            raise CalibrationError(f"process {rank}: {answer}")
        return answer

    def close(self) -> None:
        """End the workers."""
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.terminate()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _work(
    pipe: Connection,
    rank: int,
    world: int,
    counts: tuple[int, ...],
    port: int,
    device_type: str,
) -> None:
    """Life of a worker: join the group, then measure what comes until None comes."""
    # names of torch.distributed change from release to release
    warnings.simplefilter("ignore", FutureWarning)
    try:
        worker = _Worker(rank, world, counts, port, device_type)
        pipe.send([])
        while (order := pipe.recv()) is not None:
            pipe.send(worker.train(order) if isinstance(order, Steps) else worker.measure(order))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as error:
        with suppress(OSError):
            pipe.send(f"{type(error).__name__}: {error}")


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

    def train(self, order: Steps) -> Any:
        """Real steps. After those of fewer than all processes there are no sweeps any more."""
        import torch

        torch.set_num_threads(order.threads)
        self._join(order.settings.plan.num_devices, order.port)
        found = train(order, torch.device(self.device))
        if order.settings.plan.num_devices == self.world:
            self._make_groups()
        return found

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
