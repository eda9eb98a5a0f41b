"""Floor 2: how wrong the simulator is, on published measured runs."""
