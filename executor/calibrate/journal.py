"""What has been measured so far, so that an interrupted calibration goes on where it stopped."""

import json
from pathlib import Path
from typing import Any


class Journal:
    """Times by key in a file of JSON lines. A last line that was cut off is left out."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Open the journal of a calibration; one of another `identity` begins anew.

        Raises:
            OSError: the file cannot be written.
        """
        self.path = path
        self._seconds: dict[str, float] = {}
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        if lines and _parsed(lines[0]) == identity:
            for line in lines[1:]:
                entry = _parsed(line)
                if isinstance(entry, dict) and {"key", "seconds"} <= set(entry):
                    self._seconds[str(entry["key"])] = float(entry["seconds"])
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(identity) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self._seconds)

    def __contains__(self, key: str) -> bool:
        return key in self._seconds

    def __getitem__(self, key: str) -> float:
        return self._seconds[key]

    def add(self, found: dict[str, float]) -> None:
        """Note times in seconds by key."""
        self._seconds |= found
        with self.path.open("a", encoding="utf-8") as file:
            for key, seconds in found.items():
                file.write(json.dumps({"key": key, "seconds": seconds}) + "\n")

    def remove(self) -> None:
        """The calibration is complete."""
        self.path.unlink(missing_ok=True)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
