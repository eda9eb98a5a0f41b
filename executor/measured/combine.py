"""Ranks and steps into one StepRecord: means over devices, of steps around the median."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from towtank.executor.measured.run_record import RankRecord
from towtank.executor.measured.spans import Key, StepMeasurement, Wait
from towtank.simulator.operations import Phase
from towtank.simulator.record import OperationTime, StepRecord

UNNAMED: Final = "unnamed"
"""Row of the time that lies under no operation."""
BUBBLE: Final = "bubble"
"""Row of waiting for another stage that had not sent yet."""
_COLLECTIVES: Final = frozenset(
    ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast", "collective", "send")
)
_NAMED: Final = frozenset(("gradient reduction data", "parameter all-gather data"))
"""Kinds of the ends of a step that are communication."""


def is_communication(kind: str) -> bool:
    """Whether time of a kind is communication: a collective over a group, or a send."""
    return kind.partition(" ")[0] in _COLLECTIVES or kind in _NAMED


def row_of(key: Key) -> str:
    """Row of the breakdown in which an operation is counted; those of a prediction (`block_time.part_name`)."""
    if is_communication(key.kind):
        return f"exposed {key.kind}"
    return "recompute" if key.phase is Phase.RECOMPUTE else key.kind


def middle_steps(step_s: Sequence[Sequence[float]]) -> tuple[list[int], float]:
    """Which steps to average, and the seconds of the median one; `step_s` is [rank][step].

    The time of a step is the mean over devices. Steps of the middle half are averaged, since medians of single
    operations would not add up to a step; a quarter on either side is left out.
    """
    means = [fmean(one) for one in zip(*step_s, strict=True)]
    order = sorted(range(len(means)), key=means.__getitem__)
    out = len(order) // 4
    return sorted(order[out : len(order) - out]), median(means)


@dataclass(frozen=True, slots=True)
class RankTimes:
    """Means over the chosen steps of one rank, in seconds."""

    rank: int
    step_s: float
    operations: tuple[tuple[Key, float, float], ...]
    """Key, seconds in all, seconds exposed."""
    waits: tuple[tuple[Wait, ...], ...] = ()
    """Ends of messages between stages, by step."""
    peak_memory_bytes: float | None = None


def rank_times(
    rank: int, steps: Sequence[StepMeasurement], peak_memory_bytes: float | None = None
) -> RankTimes:
    """Average steps of one rank."""
    total: dict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in steps:
        for key, seconds in one.operations.items():
            row = total[key]
            row[0] += seconds.total / len(steps)
            row[1] += seconds.exposed / len(steps)
    return RankTimes(
        rank,
        fmean(one.seconds for one in steps),
        tuple((key, all_s, exposed_s) for key, (all_s, exposed_s) in total.items()),
        tuple(one.waits for one in steps),
        peak_memory_bytes,
    )


def late_senders(ranks: Sequence[RankTimes]) -> dict[int, dict[Key, float]]:
    """Seconds a step, by rank, that receivers waited for a message before it was sent: bubble, not transfer.

    Both ends are matched by name and order; all ranks must share a clock.
    """
    late: dict[int, dict[Key, float]] = defaultdict(lambda: defaultdict(float))
    for step_waits in zip(*(one.waits for one in ranks), strict=True):
        sent: dict[tuple[str, int, int], list[float]] = defaultdict(list)
        for wait in (wait for waits in step_waits for wait in waits if wait.sends):
            sent[wait.name, wait.source, wait.target].append(wait.start_s)
        for one, waits in zip(ranks, step_waits, strict=True):
            for wait in waits:
                times = sent.get((wait.name, wait.source, wait.target))
                if wait.sends or not times:
                    continue
                before = max(0.0, min(times.pop(0), wait.finish_s) - wait.start_s)
                late[one.rank][wait.key] += before / len(one.waits)
    return late


def _without_bubble(one: RankTimes, late: dict[Key, float]) -> list[tuple[Key, float, float]]:
    """Operations of a rank with waits for late senders in a row of their own."""
    rows, bubble = [], 0.0
    for key, seconds, exposed in one.operations:
        away = min(late.get(key, 0.0), exposed)
        bubble += away
        rows.append((key, max(seconds - away, 0.0), exposed - away))
    if bubble:
        rows.append((Key(BUBBLE, BUBBLE, Phase.FORWARD), bubble, bubble))
    return rows


def combine(
    ranks: Sequence[RankTimes], step_time_s: float, *, shared_clock: bool
) -> tuple[StepRecord, tuple[RankRecord, ...]]:
    """One record of all ranks, and a short one of each.

    Args:
        ranks: all ranks of the job, with the same steps.
        step_time_s: seconds of the median step; times are scaled to it from those of the mean step.
        shared_clock: whether the ranks' moments can be compared, so that waiting for a stage that has not sent yet
            is told from the transfer.

    What no name covers becomes an operation and a row `unnamed`, so that both add up to the step.
    """
    scale = step_time_s / fmean(one.step_s for one in ranks)
    late = late_senders(ranks) if shared_clock else {}
    operations: dict[Key, list[float]] = defaultdict(lambda: [0.0, 0.0])
    shares = []
    for one in ranks:
        rows = _without_bubble(one, late.get(one.rank, {}))
        rest = one.step_s - sum(exposed for _, _, exposed in rows)
        rows.append((Key(UNNAMED, UNNAMED, Phase.FORWARD), rest, rest))
        for key, seconds, exposed in rows:
            operations[key][0] += seconds * scale / len(ranks)
            operations[key][1] += exposed * scale / len(ranks)
        shares.append(
            RankRecord(one.rank, one.step_s * scale, _breakdown(rows, scale), one.peak_memory_bytes)
        )
    peaks = [one.peak_memory_bytes for one in ranks if one.peak_memory_bytes is not None]
    record = StepRecord(
        "measured",
        step_time_s,
        _breakdown(((key, all_s, exposed_s) for key, (all_s, exposed_s) in operations.items()), 1.0),
        tuple(
            OperationTime(key.name, key.kind, str(key.phase), *seconds) for key, seconds in operations.items()
        ),
        max(peaks) if len(peaks) == len(ranks) else None,
    )
    return record, tuple(shares)


def _breakdown(rows: Iterable[tuple[Key, float, float]], scale: float) -> dict[str, float]:
    parts: dict[str, float] = defaultdict(float)
    for key, _, exposed in rows:
        parts[row_of(key)] += exposed * scale
    return dict(sorted(parts.items(), key=lambda part: -part[1]))
