"""Calibration: measure kernels, collectives and steps on this machine and fit what predictions stand on."""
