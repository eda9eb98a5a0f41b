"""Context parallelism: who holds which tokens, and attention over all of them by a ring or by all-to-all."""
