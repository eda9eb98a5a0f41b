"""Suggest the known name that a wrong one was probably meant to be."""

import difflib
from collections.abc import Iterable


def did_you_mean(wrong: object, known: Iterable[str]) -> str:
    """Text such as "; did you mean 'tdp'?", or nothing where no known name is near."""
    near = difflib.get_close_matches(str(wrong).lower(), list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
