"""Options that say what lies around a job: placement of its nodes, and traffic of other jobs."""

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from towtank.cli.failure import InputError
from towtank.cli.words import named

if TYPE_CHECKING:
    from towtank.simulator.network.placement import Placed
    from towtank.simulator.network.surroundings import LinkKind, Surroundings

_PLACEMENTS = ("contiguous", "scattered", "random")

Placement = Annotated[
    str,
    typer.Option(
        "--placement",
        metavar="contiguous|scattered:FILL|random",
        help="Where the nodes of the job lie; other jobs hold the part FILL of the machine.",
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        "--background",
        metavar="SHARE|KIND=SHARE,...",
        help="Part of the links that other jobs take: between groups of the network (global), inside of them "
        "(local), interfaces of the job's nodes (interface). 0.3 is global=0.3.",
        show_default=False,
    ),
]
PlacementSeed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of a placement that is drawn.")]


def placed_of(text: str, seed: int) -> "Placed":
    """The placement `contiguous`, `scattered:FILL` or `random`."""
    from towtank.simulator.network.placement import Placed

    kind, colon, fill = text.partition(":")
    kind = named("--placement", kind, _PLACEMENTS)
    if seed < 0:
        raise InputError(f"--seed {seed} must be 0 or more")
    if kind != "scattered":
        if colon:
            raise InputError(f"--placement {text}: only scattered has a fill; write {kind}")
        return Placed(cast(Any, kind), 0.0, seed)
    try:
        share = float(fill)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise InputError(
            f"--placement {text}: write the part of the machine that other jobs hold, from 0 to below 1, "
            f"like scattered:0.6"
        )
    return Placed("scattered", share, seed)


def background_of(text: str | None) -> "dict[LinkKind, float]":
    """Shares by kind of link: `0.3`, `global=0.3,interface=0.1`; empty for nothing."""
    from towtank.simulator.network.surroundings import share_faults

    if text is None:
        return {}
    shares: dict[str, float] = {}
    faults = []
    for part in text.split(","):
        kind, equals, value = (word.strip() for word in part.rpartition("="))
        kind = kind.lower() if equals else "global"
        if kind in shares:
            faults.append(f"background: {kind} is given twice")
        try:
            shares[kind] = float(value)
        except ValueError:
            faults.append(
                f"background: {part.strip()!r} is no share; write one like 0.3 or global=0.3,interface=0.1"
            )
    if faults := faults + share_faults(shares):
        raise InputError(f"--background {text}: {'; '.join(faults)}")
    return shares  # type: ignore[return-value]


def surroundings_of(placement: str, seed: int, background: str | None) -> "Surroundings":
    """What the options say, with all faults at once."""
    from towtank.cli.failure import Inputs
    from towtank.simulator.network.surroundings import Surroundings

    inputs = Inputs()
    placed = inputs.take(lambda: placed_of(placement, seed))
    shares = inputs.take(lambda: background_of(background))
    inputs.check()
    assert placed is not None and shares is not None
    return Surroundings(placed, shares)
