"""Links between the devices of one node, where they are unequal."""

from functools import lru_cache
from pathlib import Path

from towtank.hardware_profiles.curves.loading import rows_of

_FOLDER = Path(__file__).resolve().parent


@lru_cache(maxsize=64)
def links_of_node(machine: str) -> dict[tuple[int, int], float] | None:
    """Bandwidth in bytes/s, each direction, of the link between devices a < b of a node of `machine`.

    None where nobody has written the links of that machine down.
    """
    fabric = {row["machine"]: row["fabric"] for row in rows_of(_FOLDER / "machines.csv")}.get(machine)
    if fabric is None:
        return None
    return {
        (int(row["a"]), int(row["b"])): float(row["bandwidth_bytes_per_s"])
        for row in rows_of(_FOLDER / "links.csv")
        if row["fabric"] == fabric
    }
