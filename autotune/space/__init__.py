"""The space of legal plans of a model on a machine."""
