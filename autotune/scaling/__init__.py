"""Scaling studies: the best plan at each of several numbers of devices."""
