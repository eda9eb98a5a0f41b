"""What names in a trace of the PyTorch profiler mean; the names themselves stand in `kineto_kinds.yaml`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

_FILE: Final = Path(__file__).with_suffix(".yaml")
ELEMENTWISE: Final = "elementwise"
"""Kind of whatever no pattern knows."""
COPY: Final = "copy"
"""Kind of copies between host and device."""

_Patterns = tuple[tuple[re.Pattern[str], str], ...]


@dataclass(frozen=True, slots=True)
class Kinds:
    """The patterns of the data file."""

    kernels: _Patterns
    operators: _Patterns
    collectives: _Patterns
    groups: _Patterns
    communication: re.Pattern[str]
    recompute: re.Pattern[str]
    backward: re.Pattern[str]

    def of_kernel(self, name: str, stack: Iterable[str]) -> str:
        """Kind of a device kernel; `stack` are the host's operators that launched it, innermost first."""
        operators = tuple(stack)
        called = self.of_stack(operators)
        if called in ("optimizer", "gradient norm"):
            return called
        return _first(self.kernels, name) or called

    def of_stack(self, stack: Iterable[str]) -> str:
        """Kind of time in an operator, from the innermost one outwards; an optimizer around it goes first."""
        found = [kind for name in stack if (kind := _first(self.operators, name))]
        return "optimizer" if "optimizer" in found else found[0] if found else ELEMENTWISE

    def is_communication(self, name: str) -> bool:
        """Whether a kernel or operator is a collective."""
        return self.communication.search(name) is not None

    def collective(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Kind of a collective with its group, such as `all-reduce tensor_x`, as far as the trace tells."""
        told = str(arguments.get("Collective name") or "")
        words = [_first(self.collectives, told) or _first(self.collectives, name) or "collective"]
        described = str(arguments.get("Process Group Description") or "")
        group = _first(self.groups, described)
        size = arguments.get("Group size")
        if group is None and isinstance(size, int):
            group = f"group of {size}"
        return " ".join([*words, *([group] if group else [])])


def _first(patterns: _Patterns, text: str) -> str | None:
    return next((kind for pattern, kind in patterns if pattern.search(text)), None) if text else None


@cache
def kinds() -> Kinds:
    """The patterns, compiled."""
    data = yaml.safe_load(_FILE.read_text(encoding="utf-8"))

    def listed(key: str, value: str = "kind") -> _Patterns:
        return tuple((re.compile(entry["pattern"], re.IGNORECASE), entry[value]) for entry in data[key])

    return Kinds(
        listed("kernels"),
        listed("operators"),
        listed("collectives"),
        listed("groups", "group"),
        *(re.compile(data[key], re.IGNORECASE) for key in ("communication", "recompute", "backward")),
    )
