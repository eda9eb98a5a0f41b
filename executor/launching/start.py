"""The way into a run: processes of our own, or this one as a rank of somebody else's."""

import os

from towtank.executor.errors import LaunchError
from towtank.executor.launching.environment import ALONE, joined
from towtank.executor.launching.request import RunOutcome, RunRequest
from towtank.executor.launching.signals import termination


def start(request: RunRequest) -> RunOutcome | None:
    """Run a request. None where this process is a rank of another launcher's run, but not rank 0.

    Raises:
        ExecutorError: the run cannot be done as asked.
        RunError: it began and failed.
    """
    place = joined(os.environ, request.settings.plan.num_devices)
    if place is None or place.world_size == ALONE.world_size:
        from towtank.executor.launching.local import run_processes

        return run_processes(request)
    from towtank.executor.launching.rank import run_rank

    with termination():  # what comes before the training begins ends it after its first step
        return run_rank(request, place)


def end(request: RunRequest, code: int) -> None:
    """What a process does last: one that is a rank of another launcher's run ends here, any other goes on."""
    try:
        place = joined(os.environ, request.settings.plan.num_devices)
    except LaunchError:  # it never began
        return
    if place is not None and place.world_size != ALONE.world_size:
        from towtank.executor.launching.rank import leave

        leave(code)
