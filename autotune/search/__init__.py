"""Exact search: the best plans of a space, proven best under the compiled engine."""
