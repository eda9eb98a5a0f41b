"""What can be wrong with a capacity plan."""

from collections.abc import Sequence


class CapacityError(ValueError):
    """A run or a request that cannot be planned; `faults` lists every rule that is broken."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)
