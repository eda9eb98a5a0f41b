"""Options that say what lies around a job: placement of its nodes, and traffic of other jobs."""

from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.failure import InputError

if TYPE_CHECKING:
    from towtank.simulator.network.surroundings import LinkKind, Surroundings

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
    from towtank.cli.network_job import placed_of
    from towtank.simulator.network.surroundings import Surroundings

    inputs = Inputs()
    placed = inputs.take(lambda: placed_of(placement, seed))
    shares = inputs.take(lambda: background_of(background))
    inputs.check()
    assert placed is not None and shares is not None
    return Surroundings(placed, shares)
