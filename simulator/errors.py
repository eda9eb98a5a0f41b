"""Every error that a user of the simulator can cause. The message says the rule, the values and what to do."""


class PlanError(ValueError):
    """A plan breaks rules; `faults` holds every one of them."""

    def __init__(self, faults: list[str], subject: str = "plan") -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in faults)
        noun = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{subject}: {noun}\n{lines}" if len(faults) > 1 else f"{subject}: {faults[0]}")


class StackError(ValueError):
    """A stack file is wrong or no stack has that name."""
