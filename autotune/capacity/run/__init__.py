"""A whole training run in discrete events: failures, checkpoints, allocations, pauses."""
