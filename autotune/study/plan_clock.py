"""Putting plans of one task on the clock, one after the other."""

import numpy as np

from towtank.autotune.judge.memory import peak_memory_bytes
from towtank.autotune.search.simulate import StepClock
from towtank.autotune.space.table import PlanTable
from towtank.autotune.study.measures import Simulated, busy_share
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Plan
from towtank.simulator.predict import predict


class PlanClock:
    """Step time, memory and, where asked, the share of time in which devices compute."""

    def __init__(self, task: TuningTask) -> None:
        self._task = task
        self._clock = StepClock(task)

    def simulate(self, plan: Plan, with_share: bool) -> Simulated:
        """Simulate a plan that is legal and occupies the devices of the task."""
        task = self._task
        tokens = plan.global_batch * (plan.sequence or task.model.sequence)
        if with_share:  # the fast path has no breakdown
            found = predict(task.model, task.machine, plan, stack=task.stack, profile_dirs=task.profile_dirs)
            share = busy_share(found.breakdown_s)
            return Simulated(plan.num_devices, tokens, found.step_time_s, found.peak_memory_bytes, share)
        one = PlanTable(plan, {"pipeline": (plan.pipeline,)}, {"pipeline": np.zeros(1, np.int16)})
        peak_bytes = float(peak_memory_bytes(task, one)[0])
        return Simulated(plan.num_devices, tokens, self._clock.seconds(plan), peak_bytes, 0.0)
