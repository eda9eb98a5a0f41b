"""Progress of a run on the standard error stream."""

import sys
import time

from towtank.executor.measured.run_record import MeasuredStep
from towtank.executor.settings import RunSettings

_LINES = 20
"""Lines of a whole run where nobody watches a terminal."""
_PAUSE_S = 30.0
"""After so long there is another one in any case."""


class StepProgress:
    """One line a step: rewritten on a terminal, some of them where the output goes to a file."""

    def __init__(self, settings: RunSettings, first: int, *, quiet: bool) -> None:
        self._steps, self._first, self._quiet = settings.steps, first, quiet
        plan = settings.plan
        self._tokens = plan.global_batch * settings.sizes.sequence
        self._terminal = sys.stderr.isatty()
        self._every = max(1, (settings.steps - first) // _LINES)
        self._width = 0
        self._told_s = time.monotonic()

    def show(self, step: MeasuredStep) -> None:
        """Tell of a step that is done."""
        regular = (step.number - self._first - 1) % self._every == 0 or step.number == self._steps
        listed = regular or time.monotonic() - self._told_s > _PAUSE_S
        if self._quiet or not (self._terminal or listed):
            return
        self._told_s = time.monotonic()
        norm = "overflow" if step.gradient_norm is None else f"{step.gradient_norm:.3f}"
        line = (
            f"step {step.number}/{self._steps}  loss {step.loss:.4f}  gradient norm {norm}  "
            f"{step.seconds:.3f} s  {self._tokens / step.seconds:,.0f} tokens/s"
        )
        if self._terminal:
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def finish(self) -> None:
        """End the line."""
        if self._width:
            sys.stderr.write("\n")
            sys.stderr.flush()
