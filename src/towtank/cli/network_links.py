"""`towtank network --matrix` and `--islands`: collectives on measured links, and a better order of the ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from towtank.cli.failure import InputError, Inputs

if TYPE_CHECKING:
    from towtank.simulator.network.islands import Islands
    from towtank.simulator.network.link_matrix import LinkCollective, LinkMatrix, Paced
    from towtank.simulator.network.rank_mapping import Mapped
    from towtank.simulator.network.routes import IntArray

OPTIONS = (
    "--matrix", "--islands", "--map", "--collective", "--bytes", "--group", "--seed", "--json",
)  # fmt: skip
_NAMED = 64
"""Names that are printed of a long order; JSON has all."""


@dataclass(frozen=True)
class Asked:
    """What the user gave."""

    matrix: Path | None
    islands: Path | None
    collective: str | None
    num_bytes: str | None
    group: str | None
    seed: int
    map_ranks: bool
    lost: tuple[str, ...]
    """Options of machines, which say nothing here."""


@dataclass(frozen=True)
class Answered:
    """A collective of all groups on links."""

    file: Path
    islands: "Islands | None"
    links: "LinkMatrix"
    members: "IntArray"
    collective: "LinkCollective"
    num_bytes: float
    seed: int
    paced: "Paced"
    mapped: "Mapped | None"
    mapped_paced: "Paced | None"

    @property
    def bus_bytes_per_s(self) -> float:
        """Bus bandwidth of the slowest group, as nccl-tests count it."""
        return self.bus(self.paced.slowest_s)

    def bus(self, time_s: float) -> float:
        """Bus bandwidth in bytes/s at that time."""
        from towtank.hardware_profiles.curves.collectives import bus_factor

        return bus_factor(self.collective, self.members.shape[1]) * self.num_bytes / time_s


def run(asked: Asked, json: bool) -> None:
    """Answer and print; InputError with all faults at once."""
    from towtank.cli.text import emit, emit_json

    answered = answer(asked)
    if json:
        emit_json(document(answered))
    else:
        emit(text(answered))


def answer(asked: Asked) -> Answered:
    """Time in the given order and, if asked for, in a better one."""
    from towtank.cli.network_job import members_of, size_of
    from towtank.cli.words import named
    from towtank.simulator.network.link_matrix import LINK_COLLECTIVES, paced
    from towtank.simulator.network.rank_mapping import best_order

    inputs = Inputs()
    inputs.take(lambda: _check_lost(asked))
    found = inputs.take(lambda: _links(asked))
    kind = inputs.take(lambda: cast(Any, named("--collective", asked.collective, LINK_COLLECTIVES)))
    num_bytes = inputs.take(lambda: size_of("--bytes", _size(asked.num_bytes)))
    inputs.take(lambda: _check_seed(asked.seed))
    members = None
    if found is not None:
        members = inputs.take(lambda: members_of(asked.group, found[2].size))
    inputs.check()
    assert found is not None and kind is not None and num_bytes is not None and members is not None
    file, islands, links = found
    before = paced(links, members, kind, num_bytes)
    mapped = after = None
    if asked.map_ranks:
        mapped = best_order(links, members, kind, num_bytes, seed=asked.seed)
        after = paced(links, mapped.order[members], kind, num_bytes)
    return Answered(file, islands, links, members, kind, num_bytes, asked.seed, before, mapped, after)


def _links(asked: Asked) -> "tuple[Path, Islands | None, LinkMatrix]":
    from towtank.simulator.network.island_file import read_islands
    from towtank.simulator.network.islands import island_links
    from towtank.simulator.network.link_file import read_matrix

    if asked.matrix is not None and asked.islands is not None:
        raise InputError("--matrix and --islands both say what the links are; keep one of the two")
    if asked.matrix is not None:
        return asked.matrix, None, read_matrix(asked.matrix)
    if asked.islands is not None:
        islands = read_islands(asked.islands)
        return asked.islands, islands, island_links(islands)
    raise InputError("--map needs links to choose among; give --matrix FILE or --islands FILE")


def _size(num_bytes: str | None) -> str:
    if num_bytes is None:
        raise InputError("no size is given; give --bytes such as 64MiB")
    return num_bytes


def _check_lost(asked: Asked) -> None:
    """Options of machines would be lost without a word; --map alone is told as such."""
    given = "--islands" if asked.matrix is None else "--matrix"
    if asked.lost and (asked.matrix or asked.islands):
        several = len(asked.lost) > 1
        raise InputError(
            f"{', '.join(asked.lost)} {'concern' if several else 'concerns'} a machine of ours, but {given} says "
            f"what the links are; leave {'them' if several else 'it'} out"
        )


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise InputError(f"--seed {seed} must be 0 or more")


def text(answered: Answered) -> str:
    """The answer in words."""
    from towtank.cli.text import plural, seconds, table
    from towtank.hardware_profiles.units import format_bytes

    groups, size = answered.members.shape
    title = (
        f"{answered.collective} of {format_bytes(answered.num_bytes)} over {size:,} of {answered.links.size:,} ranks "
        f"of {answered.file.name}: {seconds(answered.paced.slowest_s)}"
    )
    kind = "exchange in pairs" if answered.collective == "all_to_all" else "ring"
    rows = [
        *_islands(answered),
        ("groups", f"{plural(groups, 'group')} of {size:,}{' at once' if groups > 1 else ''}, {kind}"),
        ("bandwidth", f"bus {_rate(answered.bus_bytes_per_s)} (as nccl-tests count it)"),
        ("limits", _limit(answered, answered.paced)),
        *_mapped(answered),
    ]
    return f"{title}\n\n{table(rows)}"


def _rate(bytes_per_s: float) -> str:
    from towtank.cli.text import significant

    return f"{significant(bytes_per_s / 1e9)} GB/s"


def _limit(answered: Answered, paced: "Paced") -> str:
    from towtank.cli.text import seconds

    names = answered.links.names
    latency = float(answered.links.latency_s[paced.source, paced.destination])
    return (
        f"link from {names[paced.source]} to {names[paced.destination]}: {_rate(paced.link_bytes_per_s)}, latency "
        f"{seconds(latency)}"
    )


def _islands(answered: Answered) -> list[tuple[str, str]]:
    from towtank.cli.text import plural, seconds

    islands = answered.islands
    if islands is None:
        return []
    rows = [
        (
            f"island {each.name}",
            f"{plural(len(each.nodes), 'node')}, {each.links.technology}, {_rate(each.links.bandwidth_bytes_per_s)}, "
            f"latency {seconds(each.links.latency_s)}",
        )
        for each in islands.islands
    ]
    if islands.between is not None:
        total = islands.total_bytes_per_s
        whole = "" if total is None else f"; {_rate(total)} for an island as a whole"
        rows.append(
            (
                "between",
                f"{islands.between.technology}, {_rate(islands.between.bandwidth_bytes_per_s)} a node, latency "
                f"{seconds(islands.between.latency_s)}{whole}",
            )
        )
    return rows


def _mapped(answered: Answered) -> list[tuple[str, str]]:
    from towtank.cli.text import seconds

    mapped, after = answered.mapped, answered.mapped_paced
    if mapped is None or after is None:
        return []
    how = mapped.search if mapped.search == "all orders" else f"{mapped.search}, seed {answered.seed}"
    if mapped.gain <= 1:
        return [("mapped", f"no faster order found than the given one ({how})")]
    return [
        ("mapped", f"{seconds(mapped.time_s)}, {mapped.gain:.2f} times as fast ({how})"),
        ("then limits", _limit(answered, after)),
        ("order", _listed(_order(answered))),
    ]


def _order(answered: Answered) -> list[str]:
    """Names in the order of the ranks that were found."""
    assert answered.mapped is not None
    return [answered.links.names[place] for place in answered.mapped.order]


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _NAMED:,} more (--json lists them)" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def document(answered: Answered) -> dict[str, Any]:
    """The same as a JSON document: SI units."""
    from towtank import __version__

    mapped, after = answered.mapped, answered.mapped_paced
    groups, size = answered.members.shape
    return {
        "towtank": __version__,
        "file": str(answered.file),
        "ranks": list(answered.links.names),
        "group": {
            "groups": groups,
            "size": size,
            "stride": int(answered.members[0, 1] - answered.members[0, 0]),
        },
        "collective": answered.collective,
        "message_bytes": answered.num_bytes,
        **_record(answered, answered.paced),
        "mapped": None
        if mapped is None or after is None
        else {
            **_record(answered, after),
            "gain": mapped.gain,
            "search": mapped.search,
            "seed": answered.seed,
            "order": _order(answered),
        },
    }


def _record(answered: Answered, paced: "Paced") -> dict[str, Any]:
    names = answered.links.names
    return {
        "time_s": paced.slowest_s,
        "bus_bytes_per_s": answered.bus(paced.slowest_s),
        "limiting_link": {
            "from": names[paced.source],
            "to": names[paced.destination],
            "bytes_per_s": paced.link_bytes_per_s,
            "latency_s": float(answered.links.latency_s[paced.source, paced.destination]),
        },
    }
