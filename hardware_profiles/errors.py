"""Every error that a user of profiles can cause."""

from collections.abc import Sequence


class ProfileError(ValueError):
    """A profile is wrong: the message names the file, the rule, the value and what to do."""


class UnknownFigure(ProfileError):  # noqa: N818 - says what is the matter, as users meet it
    """A prediction needs a figure that the profile states as unknown."""


class UnknownProfile(ProfileError):  # noqa: N818
    """No device or machine of that name exists; the message names the nearest ones."""


class UnitError(ProfileError):
    """A quantity is no number with a unit of the dimension that its place needs."""


class InvalidProfile(ProfileError):  # noqa: N818
    """A profile file breaks rules; `faults` holds all of them, each with the place in the file."""

    def __init__(self, path: object, faults: Sequence[str]) -> None:
        self.path = str(path)
        self.faults = tuple(faults)
        super().__init__("\n".join([f"{path}:", *(f"  {fault}" for fault in faults)]))

    def __reduce__(self) -> tuple[type["InvalidProfile"], tuple[str, tuple[str, ...]]]:
        # Worker processes send errors; the default would rebuild this one from its message alone.
        return type(self), (self.path, self.faults)
