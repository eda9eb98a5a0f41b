"""Reads a measured link matrix: a CSV with the columns from, to, gb_per_s and, if measured, latency_us."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from towtank.hardware_profiles.errors import InvalidProfile, ProfileError
from towtank.simulator.network.link_matrix import LARGEST, LinkMatrix

COLUMNS: Final = ("from", "to", "gb_per_s")
LATENCY: Final = "latency_us"
LEAST_GB_PER_S: Final = 1e-6
MOST_GB_PER_S: Final = 1e6
MOST_US: Final = 1e9
"""Far beyond any link: what lies outside is another unit."""
_RANGE: Final = f"{LEAST_GB_PER_S:g} to {MOST_GB_PER_S:g}"
_SHOWN = 20
"""Faults that are printed; a column in a wrong unit would fill the screen."""

_Links = dict[tuple[str, str], tuple[float, float]]
"""(from, to): bandwidth in bytes/s and latency in seconds."""


def read_matrix(path: Path) -> LinkMatrix:
    """The links of `path`. A pair that stands in one direction only has the same links both ways.

    Names are ranks in the order in which the file first has them, those of `from` before those of `to` in a line.
    Blank lines and lines that begin with # are skipped.

    Raises:
        ProfileError: the file cannot be read.
        InvalidProfile: with every fault: columns, numbers that are none or not above zero, links of a node to
            itself or given twice, pairs without a link.
    """
    rows = _rows(path)
    if not rows:
        raise InvalidProfile(path, [f"the file is empty; the first line is {','.join((*COLUMNS, LATENCY))}"])
    (_, head), *body = rows
    if tuple(head) not in (COLUMNS, (*COLUMNS, LATENCY)):
        wanted = ",".join(COLUMNS)
        raise InvalidProfile(
            path, [f"line 1: the columns are {wanted} and, if measured, {LATENCY}; got {','.join(head)}"]
        )
    links, faults = _links(body, len(head))
    names = list(dict.fromkeys(name for pair in links for name in pair))
    missing = 0
    if not faults:
        faults, missing = _gaps(names, links)
    if faults:
        left = max(len(faults), missing) - _SHOWN
        raise InvalidProfile(path, [*faults[:_SHOWN], *([f"and {left:,} more"] if left > 0 else [])])
    return _matrix(names, links)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of the lines that say something."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidProfile(path, [f"byte {error.start} is not UTF-8; save the file as UTF-8"]) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    kept = [(number, line) for number, line in lines if not line.lstrip().startswith("#")]
    try:
        cells = list(csv.reader([line for _, line in kept], strict=True))
    except csv.Error as error:
        raise InvalidProfile(path, [f"not valid CSV: {error}"]) from error
    if len(cells) != len(kept):
        raise InvalidProfile(path, ["not valid CSV: a quoted cell goes over several lines"])
    return [(number, [cell.strip() for cell in row]) for (number, _), row in zip(kept, cells, strict=True)]


def _links(body: Sequence[tuple[int, list[str]]], width: int) -> tuple[_Links, list[str]]:
    links: _Links = {}
    faults = []
    for number, row in body:
        try:
            pair, link = _link(row, width)
            if pair in links:
                raise ValueError(f"the link from {pair[0]} to {pair[1]} stands twice; keep one of the two")
            links[pair] = link
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    return links, faults


def _link(row: Sequence[str], width: int) -> tuple[tuple[str, str], tuple[float, float]]:
    """One line; ValueError with everything that is wrong in it."""
    if len(row) != width:
        raise ValueError(f"{len(row)} cells, but the first line has {width}")
    source, destination = row[0], row[1]
    faults = []
    if not source or not destination:
        faults.append("a name is empty")
    elif source == destination:
        faults.append(f"a link from {source} to itself; leave it out")
    bandwidth, latency = _number(row[2]), _number(row[3]) if width > 3 else 0.0
    if not LEAST_GB_PER_S <= bandwidth <= MOST_GB_PER_S:
        faults.append(f"gb_per_s = {row[2]!r} must be a number above 0, in GB/s ({_RANGE})")
    if not 0 <= latency <= MOST_US:
        faults.append(f"{LATENCY} = {row[3]!r} must be a number from 0, in us (up to {MOST_US:g})")
    if faults:
        raise ValueError("; ".join(faults))
    return (source, destination), (bandwidth * 1e9, latency / 1e6)


def _number(text: str) -> float:
    """The number, or NaN, which no comparison accepts."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def _gaps(names: Sequence[str], links: _Links) -> tuple[list[str], int]:
    """What keeps the links from being a matrix: the first faults, and how many there are."""
    if len(names) < 2:
        return ["no links; one line a pair, such as node-0,node-1,24.5"], 1
    if len(names) > LARGEST:
        return [f"{len(names):,} nodes or devices, but at most {LARGEST:,} are taken"], 1
    gaps = (
        f"no link between {a} and {b}; every pair needs one, in one direction at least"
        for number, a in enumerate(names)
        for b in names[number + 1 :]
        if (a, b) not in links and (b, a) not in links
    )
    pairs = len({(min(pair), max(pair)) for pair in links})
    return list(islice(gaps, _SHOWN)), len(names) * (len(names) - 1) // 2 - pairs


def _matrix(names: Sequence[str], links: _Links) -> LinkMatrix:
    place = {name: number for number, name in enumerate(names)}
    bandwidth, latency = np.full((len(names), len(names)), np.inf), np.zeros((len(names), len(names)))
    both_ways = {(b, a): link for (a, b), link in links.items()} | links
    for (a, b), (width, delay) in both_ways.items():
        bandwidth[place[a], place[b]], latency[place[a], place[b]] = width, delay
    return LinkMatrix(tuple(names), bandwidth, latency)
