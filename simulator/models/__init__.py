"""Models: their shape, their parameters and their FLOP, without any idea of a machine or a plan."""
