"""What has been measured so far, so that an interrupted calibration goes on where it stopped."""

import json
from pathlib import Path
from typing import Any

from towtank.executor.calibrate.pool import CalibrationError
from towtank.hardware_profiles.calibrated.read import ENVIRONMENT


class Journal:
    """Times by key in a file of JSON lines. A last line that was cut off is left out."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Open the journal of a calibration; one of another `identity` begins anew.

        Raises:
            CalibrationError: the file cannot be read or written.
        """
        self.path = path
        self._seconds: dict[str, float] = {}
        try:
            lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
            if not lines or _parsed(lines[0]) != identity:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(identity) + "\n", encoding="utf-8")
                return
        except OSError as error:
            raise CalibrationError(
                f"{path}: cannot be written: {error.strerror}; name a folder of yours in {ENVIRONMENT}"
            ) from error
        for line in lines[1:]:
            entry = _parsed(line)
            if isinstance(entry, dict) and isinstance(entry.get("seconds"), float) and "key" in entry:
                self._seconds[str(entry["key"])] = entry["seconds"]

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
