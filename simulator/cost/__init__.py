"""Cost: seconds of one operation on a machine under a stack. Pure functions; nothing here knows the step."""
