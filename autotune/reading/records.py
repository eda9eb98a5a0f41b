"""What was read from a configuration, and what was not."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from towtank.simulator.errors import PlanError
from towtank.simulator.plan import Plan


class ReadingError(PlanError):
    """A configuration cannot become a plan; `faults` holds every reason."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A plan read from another software's configuration."""

    source: str
    """Software that it was written for."""
    plan: Plan
    model: str | None = None
    """Model of the zoo with the shape in the file, where there is one."""
    ignored: tuple[str, ...] = ()
    """Options that are no part of a plan, as they stand in the file."""
    notes: tuple[str, ...] = ()
    """Options that a plan cannot say exactly, and what was taken for them."""


@dataclass(slots=True)
class Options:
    """Options of a configuration by name, and which of them were asked for.

    `values` are texts from an argument list, or typed values from a dump; True is a switch.
    """

    values: Mapping[str, object]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def raw(self, name: str) -> object | None:
        """Value of an option as it stands there; None where it is missing or null."""
        self.used.add(name)
        return self.values.get(name)

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        value = self.raw(name)
        return value is True or (isinstance(value, str) and value.lower() in ("true", "1", ""))

    def text(self, name: str) -> str | None:
        """Value of an option as one word."""
        value = self.raw(name)
        if value is None or value is False:
            return None
        if isinstance(value, list | tuple):
            return " ".join(map(str, value))
        return str(value)

    def number(self, name: str) -> int | None:
        """A whole number from 1; anything else is a fault."""
        value = self.raw(name)
        if value is None or value is False:
            return None
        text = str(value).strip()
        if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
            self.faults.append(_not_a_number(name, text))
            return None
        return int(text)

    def unused(self) -> tuple[str, ...]:
        """Options that nobody asked for, as they stand there; those that are off are left out."""
        return tuple(
            name
            if value is True
            else f"{name} {value if not isinstance(value, list) else ' '.join(map(str, value))}"
            for name, value in self.values.items()
            if name not in self.used and value not in (None, False, [])
        )


def _not_a_number(name: str, text: str) -> str:
    if text == "auto":
        return f"{name} is auto: the program fills it in; write the number"
    if "$" in text:
        return (
            f"{name} {text}: the variable is assigned nowhere in the file; give it with --define NAME=VALUE"
        )
    return f"{name} {text!r} must be a whole number from 1"
