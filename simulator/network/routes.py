"""Routes: which links a flow uses and which share of its bytes each of them carries.

A flow is anything that moves at one rate. Most are one transfer from one endpoint to another; a whole
collective that advances in step is one flow too, whose shares are the bytes that it puts on each link for
each byte of its rate. Shares of a transfer that is spread over several paths (adaptive routing) are fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_HASH_SEED = 0x70_77_74_6E


@dataclass(frozen=True, slots=True)
class Routes:
    """Routes of many flows in compressed rows.

    Shapes: `offset` [flows + 1]; flow f uses `link[offset[f]:offset[f + 1]]` with `share` of its bytes on each.
    A link occurs once in a row, in increasing order, with a share above zero; a row may be empty (a message to
    itself).
    """

    offset: IntArray
    link: IntArray
    share: FloatArray

    @property
    def num_flows(self) -> int:
        """Number of flows."""
        return len(self.offset) - 1

    @property
    def flow(self) -> IntArray:
        """Flow of each entry, shape [entries]."""
        return np.repeat(np.arange(self.num_flows, dtype=np.int64), np.diff(self.offset))

    def take(self, flows: IntArray) -> Routes:
        """Routes of `flows` only, in that order."""
        lengths = np.diff(self.offset)[flows]
        offset = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        entry = (
            np.arange(offset[-1]) - np.repeat(offset[:-1], lengths) + np.repeat(self.offset[flows], lengths)
        )
        return Routes(offset, self.link[entry], self.share[entry])

    def load(self, num_links: int, rate: FloatArray | None = None) -> FloatArray:
        """Bytes/s on each link, shape [num_links], when flow f moves at `rate[f]` (1 where not given)."""
        weight = self.share if rate is None else self.share * np.repeat(rate, np.diff(self.offset))
        return added_up(self.link, weight, num_links)


def added_up(index: IntArray, value: FloatArray, size: int) -> FloatArray:
    """Sum of the values at each index, shape [size]."""
    return np.bincount(index, value, size).astype(np.float64, copy=False)


def from_entries(num_flows: int, flow: IntArray, link: IntArray, share: FloatArray) -> Routes:
    """Routes of entries in any order; entries of one flow on one link are added, links below zero are left out."""
    used = (link >= 0) & (share > 0)
    flow, link, share = flow[used], link[used], share[used]
    width = np.int64(link.max() + 1) if len(link) else np.int64(1)
    key, entry = np.unique(flow * width + link, return_inverse=True)
    rows = key // width
    offset = np.searchsorted(rows, np.arange(num_flows + 1)).astype(np.int64)
    return Routes(offset, key % width, added_up(entry.ravel(), share, len(key)))


def from_hops(link: IntArray, share: FloatArray) -> Routes:
    """Routes of a table of hops, both of shape [flows, hops]; a link below zero is no hop."""
    flows, hops = link.shape
    flow = np.repeat(np.arange(flows, dtype=np.int64), hops)
    return from_entries(flows, flow, link.ravel(), np.broadcast_to(share, link.shape).ravel())


def from_lists(rows: Sequence[Sequence[tuple[int, float]]]) -> Routes:
    """Routes written out: one list of (link, share) a flow."""
    flow = [number for number, row in enumerate(rows) for _ in row]
    link = [link for row in rows for link, _ in row]
    share = [share for row in rows for _, share in row]
    return from_entries(
        len(rows), np.array(flow, np.int64), np.array(link, np.int64), np.array(share, np.float64)
    )


def joined(parts: Sequence[Routes]) -> Routes:
    """Flow f of the result uses all that flow f uses in each of `parts`, which have the same flows."""
    return from_entries(
        parts[0].num_flows,
        np.concatenate([part.flow for part in parts]),
        np.concatenate([part.link for part in parts]),
        np.concatenate([part.share for part in parts]),
    )


def summed(routes: Routes, owner: IntArray, num_owners: int, weight: FloatArray | None = None) -> Routes:
    """Flows of one owner moving in step as one flow; `owner[f]` in [0, num_owners), `weight[f]` bytes each."""
    share = routes.share if weight is None else routes.share * np.repeat(weight, np.diff(routes.offset))
    return from_entries(num_owners, owner[routes.flow], routes.link, share)


def alike(routes: Routes) -> tuple[Routes, IntArray, IntArray]:
    """Flows with equal routes merged: routes of the classes, class of each flow, and flows of each class.

    Rows are compared by a sum of 64-bit hashes of their entries, so that two different rows are taken for equal
    with a probability of flows squared / 2^64.
    """
    random = np.random.default_rng(_HASH_SEED)
    num_links = int(routes.link.max()) + 1 if len(routes.link) else 1
    name = random.integers(1, 2**63, num_links, dtype=np.uint64)
    entry = name[routes.link] * (routes.share.view(np.uint64) | np.uint64(1))
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(entry, dtype=np.uint64)))
    key = total[routes.offset[1:]] - total[routes.offset[:-1]]
    _, first, member, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    return routes.take(first.astype(np.int64)), member.astype(np.int64), count.astype(np.int64)
