"""Closed forms of checkpointing under exponential failures, against which the simulation is held."""

import math


def young_interval_s(checkpoint_s: float, failure_mean_s: float) -> float:
    """Best time of work between two checkpoints, to first order: sqrt(2 d M).

    Source: Young, A first order approximation to the optimum checkpoint interval, CACM 17(9), 1974.
    """
    return math.sqrt(2 * checkpoint_s * failure_mean_s)


def daly_interval_s(checkpoint_s: float, failure_mean_s: float) -> float:
    """Best time of work between two checkpoints, to higher order.

    t = sqrt(2 d M) (1 + 1/3 sqrt(d / 2M) + 1/9 (d / 2M)) - d where d < 2M, otherwise M.
    Source: Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, FGCS 22, 2006, eq. 37.
    """
    if checkpoint_s >= 2 * failure_mean_s:
        return failure_mean_s
    ratio = checkpoint_s / (2 * failure_mean_s)
    return (
        math.sqrt(2 * checkpoint_s * failure_mean_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - checkpoint_s
    )


def daly_elapsed_s(
    training_s: float, interval_s: float, checkpoint_s: float, restart_s: float, failure_mean_s: float
) -> float:
    """Expected time of a run with synchronous checkpoints, whose failures also strike checkpoints and restarts.

    T = M e^(R/M) (e^((t + d)/M) - 1) T_s / t.
    Source: Daly 2006, eq. 20; exact for exponential failures and a whole number of intervals.
    """
    mean = failure_mean_s
    intervals = training_s / interval_s
    return mean * math.exp(restart_s / mean) * math.expm1((interval_s + checkpoint_s) / mean) * intervals
