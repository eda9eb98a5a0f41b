"""Floor 3: which plan to run."""
