"""Names of a target's options, from `names.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.files import StrictLoader

_FILE = Path(__file__).parent / "names.yaml"


@dataclass(frozen=True, slots=True)
class Names:
    """How one target calls what a plan says."""

    release: str
    """Software and release that the names belong to."""
    stack: str
    """Stack of ours that says what this software can run."""
    names: Mapping[str, str]
    """Name of an option by our key."""

    def __getitem__(self, key: str) -> str:
        """Name of the option with our key `key`; KeyError for a key that the target lacks."""
        return self.names[key]


@cache
def names_of(target: str) -> Names:
    """Names of a target; KeyError for one that nobody wrote down."""
    entry = _document()[target]
    return Names(entry["release"], entry["stack"], dict(entry["names"]))


@cache
def _document() -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = yaml.load(_FILE.read_text(encoding="utf-8"), Loader=StrictLoader)
    return document
