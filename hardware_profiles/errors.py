"""Every error that a user of profiles can cause."""


class ProfileError(ValueError):
    """A profile is wrong: the message names the file, the rule, the value and what to do."""


class UnknownFigure(ProfileError):
    """A prediction needs a figure that the profile states as unknown."""


class UnknownProfile(ProfileError):
    """No device or machine of that name exists; the message names the nearest ones."""
