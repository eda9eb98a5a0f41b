"""Cases on processes of this machine: started once for each number of processes."""

import queue
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch._C._distributed_c10d import TCPStore

from towtank.executor.equality.cases import Case
from towtank.executor.equality.compare import Difference, difference, failed
from towtank.executor.equality.training import Outcome, run

LONGEST_START_S = 300.0
LONGEST_S = 120.0
"""For one case. Whoever takes longer waits for a message that nobody sends."""
_START = timedelta(seconds=LONGEST_START_S)
_READY = "ready"


def differences(cases: Sequence[Case]) -> Iterator[tuple[Case, Difference]]:
    """Run cases, fewest processes first, and compare each with one process as soon as it is done."""
    references: dict[str, Outcome] = {}
    for number in sorted({case.plan.num_devices for case in cases}):
        chosen = [case for case in cases if case.plan.num_devices == number]
        for case, outcome in zip(chosen, _outcomes(chosen, number), strict=True):
            if isinstance(outcome, str):
                yield case, failed(outcome)
                continue
            alone = case.alone
            if alone.name not in references:
                references[alone.name] = _here(alone)
            yield case, difference(outcome, references[alone.name], case.settings.learning_rate)


def _here(case: Case) -> Outcome:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(case)
    finally:
        torch.set_num_threads(threads)


def _outcomes(cases: Sequence[Case], number: int) -> Iterator[Outcome | str]:
    """Outcome of each case, or what went wrong; the processes are started anew after a fault."""
    if number == 1:
        for case in cases:
            yield _here(case)
        return
    done = 0
    while done < len(cases):
        for outcome in _started(cases[done:], number):
            done += 1
            yield outcome


def _started(cases: Sequence[Case], number: int) -> Iterator[Outcome | str]:
    """Outcomes until the first fault."""
    # one process imports torch, and all others are copies of it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["towtank.executor.equality.training"])
    results: Any = context.Queue()
    # listens before anybody is told its port, so that nobody else can have it
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=_START)
    processes = [
        context.Process(target=_worker, args=(rank, number, store.port, list(cases), results), daemon=True)
        for rank in range(number)
    ]
    for process in processes:
        process.start()
    try:
        ready = _next(results, processes, "start", LONGEST_START_S)
        if ready != _READY:
            raise RuntimeError(ready)
        for case in cases:
            outcome = _next(results, processes, case.name, LONGEST_S)
            yield outcome
            if isinstance(outcome, str):
                return
        for process in processes:
            process.join(LONGEST_S)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _next(results: Any, processes: Sequence[Any], what: str, longest_s: float) -> Outcome | str:
    end = time.monotonic() + longest_s
    while time.monotonic() < end:
        try:
            outcome: Outcome | str = results.get(timeout=1.0)
            return outcome
        except queue.Empty:
            codes = [process.exitcode for process in processes]
            if any(codes) or None not in codes:  # one did not end well, or all have ended
                return f"{what}: no result, and processes ended with codes {codes}"
    return f"{what}: no result after {longest_s:.0f} s"


def _worker(rank: int, number: int, port: int, cases: Sequence[Case], results: Any) -> None:
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, is_master=False, timeout=_START)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=number, timeout=_START)
    dist.barrier()
    if rank == 0:
        results.put(_READY)
    for case in cases:
        try:
            outcome = run(case)
        except Exception:
            results.put(f"{case.name}, rank {rank}: {traceback.format_exc()}")
            time.sleep(LONGEST_S)  # the others wait for this process, and are ended with it
            return
        if rank == 0:
            results.put(outcome)
    dist.destroy_process_group()
