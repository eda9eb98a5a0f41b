"""Checkpoints that any plan can resume."""
