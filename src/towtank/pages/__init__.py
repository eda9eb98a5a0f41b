"""Pages that people read: the report of a step, and the local page that serves it."""
