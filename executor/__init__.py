"""Floor 4: run a plan on real devices. Nothing is built here yet; importing it offers no names."""
