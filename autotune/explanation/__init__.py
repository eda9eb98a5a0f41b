"""What limits a step: its critical path, what matters of the machine, and what another would do."""
