"""The device mesh of a plan: its groups, collectives on them, and weights as boxes of logical tensors."""
