"""Measurements of a record of tiles that is not finished yet: each is on disk when the next one starts."""

from dataclasses import dataclass
from pathlib import Path

from towtank.kernels.errors import KernelError


@dataclass(frozen=True, slots=True)
class Sample:
    """One tile timed once at one shape, after the first tile."""

    turn: int
    place: int
    """Of the tile."""
    number: int
    """Of the shape."""
    first_s: float
    own_s: float

    def text(self) -> str:
        """A line of a journal."""
        return f"{self.turn} {self.place} {self.number} {self.first_s!r} {self.own_s!r}"

    @classmethod
    def parse(cls, line: str) -> "Sample":
        """The sample of a line."""
        turn, place, number, first_s, own_s = line.split()
        return cls(int(turn), int(place), int(number), float(first_s), float(own_s))


class Journal:
    """Measurements of a record that is not finished, a line each."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what

    def samples(self) -> list[Sample]:
        """What was measured before; a line that was broken off does not count, and is removed.

        Raises:
            KernelError: the file is the journal of another record.
            OSError: it cannot be read or written.
        """
        text = self._path.read_text("utf-8", errors="replace") if self._path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        if not lines:
            self._path.write_text(f"{self._what}\n", "utf-8")
            return []
        if lines[0] != self._what:
            raise KernelError(
                f"{self._path} is left of a record of something else ({lines[0]}); remove it, or choose another name"
            )
        self._path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        try:
            return [Sample.parse(line) for line in lines[1:]]
        except ValueError as error:
            raise KernelError(
                f"{self._path} holds a line that is no measurement: {error}; remove it"
            ) from error

    def add(self, sample: Sample) -> None:
        """Write one measurement, which a crash of this process cannot undo."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(sample.text() + "\n")
