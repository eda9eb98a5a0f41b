"""Configurations of other software, read back into plans."""
