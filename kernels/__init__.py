"""Floor 0: what runs on one device: FLOP and bytes of each kernel of a training step."""
