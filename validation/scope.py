"""What the published runs cover, and why a prediction goes beyond them."""

from collections.abc import Iterable, Mapping
from typing import Any

from towtank.validation.features import Features


def range_of(validated: Iterable[Features]) -> dict[str, Any]:
    """What was validated: devices with their largest run by network, precisions, and whether with experts; stacks."""
    devices: dict[str, dict[str, Any]] = {}
    stacks: set[str] = set()
    for features in validated:
        stacks.add(features.stack)
        entry = devices.setdefault(
            features.device, {"largest": {}, "largest_in_node": 0, "precisions": set(), "moe": set()}
        )
        entry["precisions"].add(features.precision)
        entry["moe"].add(features.moe)
        if features.num_nodes > 1:
            known = entry["largest"].get(features.network, 0)
            entry["largest"][features.network] = max(known, features.num_devices)
        else:
            entry["largest_in_node"] = max(entry["largest_in_node"], features.num_devices)
    for entry in devices.values():
        entry["precisions"] = sorted(entry["precisions"])
        entry["moe"] = sorted(entry["moe"])
    return {"devices": devices, "stacks": sorted(stacks)}


def reasons(features: Features, validated: Mapping[str, Any]) -> tuple[str, ...]:
    """Why a prediction extrapolates, one sentence each."""
    entry = validated["devices"].get(features.device)
    if entry is None:
        return (f"no validated run on {features.device}",)
    found = []
    if features.precision not in entry["precisions"]:
        found.append(f"no validated run in {features.precision} on this device")
    if features.moe not in entry["moe"]:
        found.append(f"no validated run of {'an MoE' if features.moe else 'a dense'} model on this device")
    if features.stack not in validated["stacks"]:
        found.append(f"no validated run of stack {features.stack}")
    largest = entry["largest"].get(features.network, 0)
    if features.num_nodes > 1 and not largest:
        found.append(f"no validated run across nodes of this device on {features.network}")
    elif features.num_nodes > 1 and features.num_devices > largest:
        found.append(f"no validated run above {largest:,} devices on this network")
    return tuple(found)
