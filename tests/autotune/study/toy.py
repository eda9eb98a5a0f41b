"""An objective whose evaluations leave a trace, and a worker on it that can be run as a program."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from towtank.autotune.study.records import (
    Choice,
    Measure,
    Outcome,
    Parameter,
    Parameters,
    RefusedError,
    Settings,
    TrialError,
    Whole,
)
from towtank.autotune.study.session import create_or_continue
from towtank.autotune.study.work import work


class Toy:
    """(a - 7)^2 + c, plus 5 for b = v; c does nothing for b = u, so that several parameters have one name."""

    def __init__(
        self,
        log: Path | None = None,
        pause_s: float = 0.0,
        measures: tuple[Measure, ...] = (Measure("y", "minimize", "-"),),
        seeds: tuple[Parameters, ...] = ({"a": 2, "b": "u", "c": 0},),
        most: int = 9,
        workers: int = 1,
    ) -> None:
        """`workers`: how many processes must have begun a trial before any of them goes on, by the log."""
        self.measures, self.seeds = measures, seeds
        self.space: Mapping[str, Parameter] = {"a": Whole(0, most), "b": Choice(("u", "v")), "c": Whole(0, 4)}
        self._log, self._pause_s, self._workers = log, pause_s, workers
        self.evaluated: list[str] = []

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "toy", "space": len(self.space)}

    def name_of(self, parameters: Parameters) -> str:
        if parameters["a"] == 4:
            raise RefusedError("a is not 4")
        c = 0 if parameters["b"] == "u" else parameters["c"]
        return f"{parameters['a']}{parameters['b']}{c}"

    def evaluate(self, parameters: Parameters) -> Outcome:
        name = self.name_of(parameters)
        self.evaluated.append(name)
        self._note("begin", name)
        self._wait_for_others()
        if parameters["a"] == 0:
            raise TrialError("a is 0")
        time.sleep(self._pause_s)
        self._note("end", name)
        a, c = int(parameters["a"]), int(name[2:])
        cost = float((a - 7) ** 2 + c + 5 * (name[1] == "v"))
        return Outcome((cost, -float(a))[: len(self.measures)], {"most": a - 8.0})

    def _wait_for_others(self) -> None:
        while self._log is not None and self._workers > 1:
            if len({line.split()[2] for line in self._log.read_text().splitlines()}) >= self._workers:
                self._workers = 1
            time.sleep(0.01)

    def _note(self, what: str, name: str) -> None:
        if self._log is not None:
            line = f"{what} {name} {os.getpid()}\n".encode()
            handle = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, line)
            os.close(handle)


if __name__ == "__main__":
    place, log, trials, pause, workers = sys.argv[1:6]
    toy = Toy(Path(log), float(pause), workers=int(workers))
    work(create_or_continue(place, "toys", toy, Settings(int(trials), "random", lease_s=20.0)), toy)
