"""Words that an option may be."""

from collections.abc import Sequence

from towtank.cli.failure import InputError


def named(option: str, word: str | None, known: Sequence[str]) -> str:
    """`word`, if it is one of `known`; InputError with the nearest one if not."""
    if word is None:
        raise InputError(f"{option} is missing (known: {', '.join(known)})")
    plain = word.strip().lower().replace("-", "_")
    for name in known:
        if plain.replace("_", "") == name.replace("_", ""):
            return name
    from towtank.hardware_profiles.nearest import did_you_mean

    raise InputError(f"{option} {word} is unknown{did_you_mean(plain, known)} (known: {', '.join(known)})")


def one_of(option: str, word: str | None, known: Sequence[str | None]) -> None:
    """Check that a word is one of `known`; None among them: the option may be left out.

    Raises:
        InputError: it is not; with the nearest one.
    """
    if word not in known:
        from towtank.hardware_profiles.nearest import did_you_mean

        names = [name for name in known if name]
        raise InputError(
            f"{option} {word} is unknown{did_you_mean(str(word), names)} (known: {', '.join(names)})"
        )
