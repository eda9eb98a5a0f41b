"""Floor 0: what runs on one device: each kernel of a training step with its reference, its cost and its backends."""
