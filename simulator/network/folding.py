"""Folding: flows and links that are alike by symmetry, and the small network that stands for all of them.

Flows of one class cross as many links of each class, with the same shares, as every other of it, and links of one
class carry as many flows of each class: an equitable partition, found by colour refinement (as for graph
isomorphism; Grohe and others, "Dimension Reduction via Colour Refinement", ESA 2014, show that linear programs keep
their solutions under it). Max-min rates are then equal within a class, so rings of 32,768 devices become a few
flows, and processes simulate one of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.network.routes import FloatArray, IntArray, Routes, from_entries

Hash = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Folded:
    """The small network: `routes` has a flow for each class, `capacity_bytes_per_s` a link for each class.

    `flow_class[f]` is the class of each flow, `count[c]` the flows of a class; `link_class` likewise, -1 for links
    that no flow uses.
    """

    capacity_bytes_per_s: FloatArray
    routes: Routes
    flow_class: IntArray
    link_class: IntArray
    count: IntArray


def fold(capacity_bytes_per_s: FloatArray, routes: Routes, kind: IntArray | None = None) -> Folded:
    """The coarsest folding in which all flows of a class are of one `kind` [flows] (family, bytes, start).

    Classes are told apart by sums of 64-bit hashes.
    """
    num_links = len(capacity_bytes_per_s)
    flow, link = routes.flow, routes.link
    used = np.bincount(link, minlength=num_links) > 0
    flow_class = _numbered(np.zeros(routes.num_flows, np.int64) if kind is None else kind)
    link_class = _numbered(capacity_bytes_per_s)
    share = _mixed(routes.share.view(np.uint64))
    by_link = np.argsort(link, kind="stable")
    first_of_link = np.searchsorted(link[by_link], np.arange(num_links + 1))
    classes = 0
    while True:
        sums = _sums(_mixed(share ^ _mixed(link_class[link].astype(np.uint64))), routes.offset)
        flow_class = _numbered(_mixed(flow_class.astype(np.uint64)) + sums)
        seen = _mixed(share ^ _mixed(flow_class[flow].astype(np.uint64)))[by_link]
        link_class = _numbered(_mixed(link_class.astype(np.uint64)) + _sums(seen, first_of_link))
        found = int(flow_class.max(initial=-1)) + int(link_class.max(initial=-1))
        if found == classes:
            return _quotient(capacity_bytes_per_s, routes, flow_class, np.where(used, link_class, -1))
        classes = found


def _quotient(capacity: FloatArray, routes: Routes, flow_class: IntArray, link_class: IntArray) -> Folded:
    """One link of each class with all the flows on it, by class."""
    kept, first = np.unique(link_class, return_index=True)
    first = first[kept >= 0]
    number = np.full(len(capacity), -1, np.int64)
    number[first] = np.arange(len(first))
    position = np.full(int(link_class.max(initial=-1)) + 2, -1, np.int64)
    position[kept[kept >= 0]] = np.arange(len(first))
    entry = number[routes.link] >= 0
    count = np.bincount(flow_class)
    folded = from_entries(
        len(count), flow_class[routes.flow[entry]], number[routes.link[entry]], routes.share[entry]
    )
    return Folded(capacity[first], folded, flow_class, position[link_class], count.astype(np.int64))


def paced(
    capacity_bytes_per_s: FloatArray, routes: Routes, kind: IntArray, kinds: int
) -> tuple[FloatArray, Routes]:
    """Links and one flow for each of `kinds`, which loads them as all flows of a `kind` [flows] at one pace.

    Right for flows that end together, such as the rings of a collective: the slowest of them sets the pace. Links are
    left out where another one is at least as full, whatever runs.
    """
    links = len(capacity_bytes_per_s)
    at = kind[routes.flow] * links + routes.link
    load = np.bincount(at, routes.share, kinds * links).astype(np.float64).reshape(kinds, links)
    kept = _undominated((load / capacity_bytes_per_s).T)
    flow, link = np.nonzero(load[:, kept])
    return capacity_bytes_per_s[kept], from_entries(kinds, flow, link, load[flow, kept[link]])


def _undominated(rows: FloatArray) -> IntArray:
    """Numbers of the rows that no other reaches in every column, one of those that are alike; none of zeros."""
    left = np.flatnonzero(rows.any(axis=1))
    left = left[np.argsort(-rows[left].sum(axis=1), kind="stable")]
    found = []
    while len(left):
        found.append(int(left[0]))
        left = left[(rows[left] > rows[left[0]]).any(axis=1)]
    return np.array(found, np.int64)


def _numbered(value: NDArray[np.generic]) -> IntArray:
    """Numbers from 0 for distinct values."""
    return np.asarray(np.unique(value, return_inverse=True)[1], np.int64)


def _mixed(value: Hash) -> Hash:
    """A 64-bit hash of each value (the finaliser of SplitMix64; Steele, Lea and Flood, OOPSLA 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _sums(value: Hash, offset: IntArray) -> Hash:
    """Sum of each row of compressed rows, modulo 2^64."""
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(value, dtype=np.uint64)))
    result: Hash = total[offset[1:]] - total[offset[:-1]]
    return result
