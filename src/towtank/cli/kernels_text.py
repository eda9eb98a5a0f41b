"""How results of kernels are printed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from towtank.cli.kernels_choice import precision
from towtank.cli.text import paragraph, plural, table

if TYPE_CHECKING:
    from towtank.kernels.validate import Verdict


def verdict_text(verdicts: "Sequence[Verdict]", skipped: Sequence[str], where: str, seed: int) -> str:
    """Every variant with its error, then what was wrong and what could not be tried."""
    rows = [
        (
            each.kernel,
            each.backend,
            precision(each.dtype),
            tile_text(each.tile),
            str(each.checks),
            "wrong" if each.faults else f"{each.error:.2f}",
        )
        for each in verdicts
    ]
    wrong = [each for each in verdicts if each.faults]
    lines = [
        f"Kernels on {where}, against float64; seed {seed}\n",
        table(rows, ("kernel", "backend", "dtype", "tile", "checks", "error / limit"), right=(4,)),
        "",
        f"{len(verdicts) - len(wrong)} of {plural(len(verdicts), 'variant')} passed",
    ]
    for each in wrong:
        title = f"{each.kernel} ({each.backend}, {precision(each.dtype)}, {tile_text(each.tile)})"
        lines.append(f"\n{title}: {plural(len(each.faults), 'fault')}")
        lines += [paragraph(f"{fault.case}: {fault.text}") for fault in each.faults[:3]]
    lines += [paragraph(f"not tried: {reason}", indent=0) for reason in skipped]
    return "\n".join(lines)


def tile_text(tile: Mapping[str, int]) -> str:
    """A tile in one line, such as `block_m=64 warps=4`."""
    return " ".join(f"{name}={value}" for name, value in tile.items()) or "-"
