"""Floor 1: how long a training step takes, how much memory it needs, where the time goes."""
