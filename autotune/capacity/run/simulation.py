"""One training run in SimPy: the job works from stop to stop, and failures interrupt it."""

from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from towtank.autotune.capacity.run.blocks import Block, intervals_before
from towtank.autotune.capacity.run.records import FailureCause, RunOutcome, TrainingJob
from towtank.autotune.capacity.run.rules import check
from towtank.autotune.capacity.run.steps import StepClock

Events = Generator[simpy.Event, Any, None]
_NEVER = float("inf")
_PROGRESS = ("training", "fewer nodes")
"""Time of steps; it is lost where no checkpoint has made it safe."""


def simulate(job: TrainingJob, rng: np.random.Generator) -> RunOutcome:
    """Simulate one run from its first wait in the queue to the checkpoint after its last step.

    Raises:
        CapacityError: the run could never end, and every rule that says so.
    """
    check(job)
    run = _Run(job, rng)
    run.environment.run(until=run.environment.process(run.whole()))
    return run.outcome()


class _Run:
    """State of one run: how far it has come, what is safe, which nodes there are."""

    def __init__(self, job: TrainingJob, rng: np.random.Generator) -> None:
        self.job = job
        self.rng = rng
        self.environment = simpy.Environment()
        self.clock = StepClock(job.stretches)
        self.steps = job.steps
        self.parts: defaultdict[str, float] = defaultdict(float)
        self.interruptions: Counter[str] = Counter()
        self.step = self.safe_step = 0
        self.safe_parts = dict.fromkeys(_PROGRESS, 0.0)
        """Time of the steps that a finished checkpoint has made safe."""
        self.checkpoints = self.jobs = 0
        self.allocated_s = 0.0
        self.spares = simpy.Container(self.environment, init=job.recovery.spare_nodes)
        self.waits = False
        """Whether the job stands still for want of a node; nothing fails then."""
        self.lacks_node = False
        """Whether an allocation ended while the job waited for a node: the next begins when there is one."""
        self.missing_nodes = 0
        self.returned_nodes = 0
        self.writer: simpy.Process | None = None
        self.deadline_s = float("inf")
        self.maintenance_s = job.maintenance.every_s if job.maintenance else float("inf")

    def outcome(self) -> RunOutcome:
        """What came of it."""
        return RunOutcome(
            elapsed_s=self.environment.now,
            parts_s=dict(self.parts),
            interruptions=dict(self.interruptions),
            checkpoints=self.checkpoints,
            jobs=self.jobs,
            allocated_s=self.allocated_s,
        )

    def spend(self, part: str, seconds: float) -> Events:
        """Let time pass; what is interrupted counts as far as it came."""
        if seconds == 0:
            return
        begin = self.environment.now
        try:
            yield self.environment.timeout(seconds)
        finally:
            self.parts[part] += self.environment.now - begin

    def hold(self, part: str, seconds: float) -> Events:
        """Let time pass that trains nothing, as far as the allocation goes."""
        yield from self.spend(part, max(0.0, min(seconds, self.end_s() - self.environment.now)))

    def end_s(self) -> float:
        """When the nodes are taken away: by the limit of the job or by maintenance."""
        return min(self.deadline_s, self.maintenance_s)

    def whole(self) -> Events:
        """Jobs one after the other until the last step is safe."""
        while self.safe_step < self.steps:
            yield from self.wait_for_nodes()
            begin = self.environment.now
            work = self.environment.process(self.one_job())
            failures = self.environment.process(self.fail(work))
            yield work
            if failures.is_alive:
                failures.interrupt()
            self.allocated_s += self.environment.now - begin
            if self.environment.now == begin:
                yield from self.wait_for_an_event()

    def wait_for_an_event(self) -> Events:
        """Where no step fits into a job with the nodes that are left: until something happens, such as a repair."""
        while self.environment.peek() <= self.environment.now:
            yield self.environment.timeout(0)
        yield from self.spend("queue", self.environment.peek() - self.environment.now)

    def wait_for_nodes(self) -> Events:
        """The queue, and the maintenance that the job would run into before its first checkpoint."""
        job = self.job
        if self.lacks_node:
            yield from self.take_spare("queue", float("inf"))
        if job.allocation.queue_s > 0:
            yield from self.spend("queue", float(self.rng.exponential(job.allocation.queue_s)))
        need = job.allocation.start_s + self.clock.longest_s + self.safety_s()
        while job.maintenance and self.environment.now + need > self.maintenance_s:
            end = self.maintenance_s + job.maintenance.lasts_s
            yield from self.spend("maintenance", max(0.0, end - self.environment.now))
            self.maintenance_s += job.maintenance.every_s
        self.rejoin()
        self.jobs += 1
        limit = job.allocation.limit_s
        self.deadline_s = float("inf") if limit is None else self.environment.now + limit

    def fail(self, work: simpy.Process) -> Events:
        """Interrupt the work at random; broken nodes of an elastic job fail no more."""
        job = self.job
        rates = np.array([cause.per_node_s * job.nodes + cause.per_job_s for cause in job.causes])
        stragglers = job.stragglers.per_node_s * job.nodes if job.stragglers else 0.0
        total = float(rates.sum()) + stragglers
        if total == 0:
            return
        shares = np.append(rates, stragglers) / total
        try:
            while True:
                yield self.environment.timeout(float(self.rng.exponential(1 / total)))
                chosen = int(self.rng.choice(len(shares), p=shares))
                if not work.is_alive:
                    return
                if self.waits:
                    continue
                cause = job.causes[chosen] if chosen < len(job.causes) else None
                if (cause is None or cause.per_node_s) and self.rng.random() * job.nodes < self.missing_nodes:
                    continue
                work.interrupt(cause)
        except simpy.Interrupt:
            return

    def one_job(self) -> Events:
        """Work within one allocation, through its failures."""
        try:
            yield from self.spend("start of jobs", self.job.allocation.start_s)
            yield from self.work()
            return
        except simpy.Interrupt as failure:
            cause = failure.cause
        while True:
            try:
                yield from self.recover(cause)
                yield from self.work()
                return
            except simpy.Interrupt as failure:
                cause = failure.cause

    def work(self) -> Events:
        """Train from stop to stop until the run or the allocation ends, and leave the state safe."""
        job = self.job
        while self.step < self.steps:
            if intervals := self.intervals_undisturbed():
                yield from self.pass_intervals(intervals)
                continue
            steps = self.steps_to_stop()
            if steps == 0:
                break
            yield from self.train(steps)
            if job.evaluation and self.step % job.evaluation.every_steps == 0:
                yield from self.spend("evaluation", job.evaluation.lasts_s)
            if self.step % job.checkpoints.interval_steps == 0 and self.step < self.steps:
                yield from self.save()
                yield from self.take_back_nodes()
        if self.safe_step < self.step:
            yield from self.save()
            yield from self.written()

    def intervals_undisturbed(self) -> int:
        """Intervals between checkpoints from here on that only a failure can stop, and that leave steps to do."""
        job, interval = self.job, self.job.checkpoints.interval_steps
        if job.checkpoints.mode != "sync" or self.missing_nodes or self.step % interval:
            return 0
        steps = min(self.clock.steps_alike(self.step), self.steps - self.step - 1)
        if job.evaluation:
            # the step before an evaluation is not the last of a block: the pause comes before the checkpoint
            every = job.evaluation.every_steps
            steps = min(steps, every - self.step % every - 1)
        intervals, end_s = steps // interval, self.end_s()
        if intervals == 0 or end_s == _NEVER:
            return intervals
        left_s = end_s - self.environment.now - self.safety_s()
        training_s = self.clock.seconds(self.step, interval)
        return min(intervals, intervals_before(left_s, training_s, job.checkpoints.blocking_s))

    def pass_intervals(self, intervals: int) -> Events:
        """Train and save so many times: one event, as a run has thousands of checkpoints and far fewer failures."""
        checkpoints, begin = self.job.checkpoints, self.environment.now
        training_s = self.clock.seconds(self.step, checkpoints.interval_steps)
        block = Block(intervals, training_s, checkpoints.blocking_s)
        try:
            yield self.environment.timeout(block.seconds)
        except simpy.Interrupt as event:
            whole, training_s, saving_s = block.after(self.environment.now - begin)
            self.count_intervals(block, whole)
            self.count_begun(training_s, saving_s, slow=event.cause is None)
            raise
        self.count_intervals(block, intervals)

    def count_intervals(self, block: Block, intervals: int) -> None:
        """Whole intervals are done, and the last of their checkpoints is complete."""
        if intervals == 0:
            return
        self.parts["training"] += intervals * block.training_s
        self.parts["checkpoint"] += intervals * block.saving_s
        self.step += intervals * self.job.checkpoints.interval_steps
        self.checkpoints += intervals - 1
        self.make_safe(self.step, {part: self.parts[part] for part in _PROGRESS})

    def count_begun(self, training_s: float, saving_s: float, *, slow: bool) -> None:
        """What was done of an interval until it was interrupted, by a slow node or a failure."""
        interval = self.job.checkpoints.interval_steps
        if saving_s > 0:
            self.parts["training"] += training_s
            self.parts["checkpoint"] += saving_s
            self.step += interval
            return
        done = self.clock.steps_within(self.step, training_s) if slow else 0
        counted_s = self.clock.seconds(self.step, done) if slow else training_s
        self.parts["stragglers"] += training_s - counted_s
        self.parts["training"] += counted_s
        self.step += done

    def train(self, steps: int) -> Events:
        """Some steps. Of those that a slow node interrupts the whole ones count, and the rest of one is its loss.

        What missing nodes make them longer is no training.
        """
        begin, before = self.environment.now, self.parts["training"]
        slowdown = self.slowdown()
        try:
            yield from self.spend("training", self.clock.seconds(self.step, steps) * slowdown)
        except simpy.Interrupt as event:
            if event.cause is None:
                done = self.clock.steps_within(self.step, (self.environment.now - begin) / slowdown)
                counted = self.clock.seconds(self.step, done) * slowdown
                self.parts["stragglers"] += self.parts["training"] - before - counted
                self.parts["training"] = before + counted
                self.step += done
            raise
        finally:
            if slowdown > 1:
                longer = (self.parts["training"] - before) * (1 - 1 / slowdown)
                self.parts["training"] -= longer
                self.parts["fewer nodes"] += longer
        self.step += steps

    def steps_to_stop(self) -> int:
        """Steps until something other than a failure is due; 0 where the allocation has no time for one more."""
        job = self.job
        interval = job.checkpoints.interval_steps
        steps = min(self.steps - self.step, interval - self.step % interval)
        if job.evaluation:
            interval = job.evaluation.every_steps
            steps = min(steps, interval - self.step % interval)
        end_s = self.end_s()
        if end_s == _NEVER:
            return steps
        left = end_s - self.environment.now - self.safety_s()
        return min(steps, self.clock.steps_within(self.step, left / self.slowdown()))

    def safety_s(self) -> float:
        """Time that must be left at the end of an allocation: for a checkpoint, one before it, an evaluation."""
        checkpoints, evaluation = self.job.checkpoints, self.job.evaluation
        pending = checkpoints.write_s if checkpoints.mode != "sync" else 0.0
        pause = evaluation.lasts_s if evaluation else 0.0
        return checkpoints.blocking_s + checkpoints.write_s + pending + pause

    def slowdown(self) -> float:
        """Step time with the nodes that there are over that with all."""
        return self.job.nodes / (self.job.nodes - self.missing_nodes) if self.missing_nodes else 1.0

    def save(self) -> Events:
        """A checkpoint; all but a synchronous one goes on being written while the job works."""
        yield from self.written()
        state = (self.step, {part: self.parts[part] for part in _PROGRESS})
        checkpoints = self.job.checkpoints
        yield from self.spend("checkpoint", checkpoints.blocking_s)
        if checkpoints.mode == "sync":
            self.make_safe(*state)
        else:
            self.writer = self.environment.process(self.write(*state))

    def write(self, step: int, parts_s: dict[str, float]) -> Events:
        """Write a copied state to storage; a failure of the job ends it, and what it wrote counts for nothing."""
        try:
            yield self.environment.timeout(self.job.checkpoints.write_s)
        except simpy.Interrupt:
            return
        self.make_safe(step, parts_s)

    def make_safe(self, step: int, parts_s: dict[str, float]) -> None:
        """A checkpoint is complete."""
        self.safe_step, self.safe_parts = step, parts_s
        self.checkpoints += 1

    def written(self) -> Events:
        """Wait until the last checkpoint is complete."""
        begin = self.environment.now
        try:
            if self.writer is not None and self.writer.is_alive:
                yield self.writer
        finally:
            self.parts["checkpoint"] += self.environment.now - begin

    def recover(self, cause: FailureCause | None) -> Events:
        """Go back to the last complete checkpoint and start again; None stands for a slow node."""
        if cause is None:
            yield from self.replace_straggler()
            return
        self.interruptions[cause.name] += 1
        self.roll_back()
        yield from self.hold("detection", self.job.recovery.detection_s)
        if cause.breaks_node:
            yield from self.replace_node()
        self.rejoin()
        yield from self.hold("restart", self.job.recovery.restart_s)

    def roll_back(self) -> None:
        """Training since the last complete checkpoint is lost."""
        if self.writer is not None and self.writer.is_alive:
            self.writer.interrupt()
        for part, safe_s in self.safe_parts.items():
            self.parts["lost work"] += self.parts[part] - safe_s
            self.parts[part] = safe_s
        self.step = self.safe_step

    def replace_node(self) -> Events:
        """A spare takes the place, or the job shrinks, or it waits for the first node that is repaired."""
        recovery = self.job.recovery
        if self.spares.level >= 1:
            yield self.spares.get(1)
            self.environment.process(self.repair(1))
        elif recovery.elastic_nodes and self.missing_nodes + recovery.elastic_nodes < self.job.nodes:
            self.missing_nodes += recovery.elastic_nodes
            self.environment.process(self.repair(0))
        else:
            self.environment.process(self.repair(1))
            self.waits = True
            yield from self.take_spare("waiting for a node", self.end_s())
            self.waits = False

    def take_spare(self, part: str, end_s: float) -> Events:
        """Wait for a spare node until some time."""
        begin = self.environment.now
        asked = self.spares.get(1)
        yield asked if end_s == float("inf") else asked | self.environment.timeout(max(0.0, end_s - begin))
        self.parts[part] += self.environment.now - begin
        self.lacks_node = not asked.triggered
        if self.lacks_node:
            asked.cancel()

    def repair(self, spares: int) -> Events:
        """A broken node comes back, as a spare or to the job."""
        yield self.environment.timeout(self.job.recovery.repair_s)
        if spares:
            yield self.spares.put(spares)
        else:
            self.returned_nodes += self.job.recovery.elastic_nodes or 0

    def rejoin(self) -> None:
        """Nodes that have come back work again, from a start of the job on."""
        self.missing_nodes -= self.returned_nodes
        self.returned_nodes = 0

    def take_back_nodes(self) -> Events:
        """After a checkpoint an elastic job starts anew with the nodes that have come back."""
        if self.returned_nodes == 0:
            return
        yield from self.written()
        self.rejoin()
        yield from self.hold("restart", self.job.recovery.restart_s)

    def replace_straggler(self) -> Events:
        """Time that a slow node costs until it is found, and a planned restart without it.

        The steps done meanwhile are not simulated apart: of the time until detection all but what the same steps take
        undisturbed is lost.
        """
        stragglers = self.job.stragglers
        assert stragglers is not None
        yield from self.hold("stragglers", stragglers.detection_s * (1 - 1 / stragglers.slowdown))
        yield from self.save()
        yield from self.written()
        yield from self.hold("restart", self.job.recovery.restart_s)
