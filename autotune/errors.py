"""Errors that a user of the search can cause."""

from collections.abc import Sequence


class TuningError(ValueError):
    """A search cannot be made as asked; the message says which rule, the values and what to do."""

    def __init__(self, faults: Sequence[str], subject: str = "tune") -> None:
        self.faults = tuple(faults)
        if len(faults) == 1:
            super().__init__(f"{subject}: {faults[0]}")
        else:
            lines = "\n".join(f"  - {fault}" for fault in faults)
            super().__init__(f"{subject}: {len(faults)} faults\n{lines}")
