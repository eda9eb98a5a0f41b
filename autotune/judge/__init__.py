"""Judging plans by the hundred thousand: peak memory, and a lower bound of the step time."""
