"""One training step of a device: passes in the order of the schedule, sums of gradients, optimizer, ZeRO."""
