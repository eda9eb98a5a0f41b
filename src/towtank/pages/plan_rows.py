"""A plan as names and values, the way `--set` and plan files write them."""

import json
from typing import Any

from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_to_mapping


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """Fields that differ from the defaults; switches of a group with its name, such as `overlap.tensor`."""
    rows: list[tuple[str, str]] = []
    for name, value in plan_to_mapping(plan).items():
        if isinstance(value, dict):
            rows += [(f"{name}.{key}", _text(switch)) for key, switch in value.items()]
        elif name != "schema":
            rows.append((name, _text(value)))
    return rows


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
