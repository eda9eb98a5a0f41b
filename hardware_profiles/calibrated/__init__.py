"""Calibrations of a machine by measurements made on it: `calibrations/NAME.yaml`, written by `towtank calibrate`."""
