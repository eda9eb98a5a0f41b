"""Floor 3: which plan to run. Nothing is built here yet; importing it offers no names."""
