"""Capacity plans: from the seconds of one step to the weeks, node-hours, energy and money of a whole training run."""
