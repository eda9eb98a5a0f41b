"""Collectives on measured links: times by hand, files with faults, and what renaming must not change."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.hardware_profiles.errors import InvalidProfile, ProfileError
from towtank.simulator.network.link_file import read_matrix
from towtank.simulator.network.link_matrix import LINK_COLLECTIVES, LinkMatrix, paced

THREE = """\
# GB/s, measured one pair at a time
from,to,gb_per_s,latency_us
a,b,10,5
b,a,8,5
a,c,20,2

b,c,4,7
"""


def _written(folder: Path, text: str) -> Path:
    path = folder / "links.csv"
    path.write_text(text)
    return path


def _ranks(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(rows, np.int64)


def test_a_file_is_directed_where_it_has_both_directions(tmp_path) -> None:
    links = read_matrix(_written(tmp_path, THREE))
    assert links.names == ("a", "b", "c")
    inf = np.inf
    assert links.bandwidth_bytes_per_s.tolist() == [[inf, 10e9, 20e9], [8e9, inf, 4e9], [20e9, 4e9, inf]]
    assert links.latency_s == pytest.approx(np.array([[0, 5, 2], [5, 0, 7], [2, 7, 0]]) * 1e-6)
    plain = read_matrix(_written(tmp_path, "\ufefffrom, to, gb_per_s\nx,y,2.5\n"))
    assert plain.bandwidth_bytes_per_s[1, 0] == 2.5e9 and not plain.latency_s.any()


def test_a_ring_runs_at_the_pace_of_its_slowest_link(tmp_path) -> None:
    links = read_matrix(_written(tmp_path, THREE))
    # parts of 40 MB; a -> b 4 ms + 5 us, b -> c 10 ms + 7 us, c -> a 2 ms + 2 us; two steps, four for all-reduce
    found = paced(links, _ranks((0, 1, 2)), "all_gather", 120e6)
    assert found.slowest_s == pytest.approx(2 * 10.007e-3)
    assert (found.source, found.destination, found.link_bytes_per_s) == (1, 2, 4e9)
    assert paced(links, _ranks((0, 1, 2)), "reduce_scatter", 120e6).slowest_s == found.slowest_s
    assert paced(links, _ranks((0, 1, 2)), "all_reduce", 120e6).slowest_s == pytest.approx(4 * 10.007e-3)
    # two groups at once would be two rows; one of two members takes the slower of its two directions: 60 MB at 8 GB/s
    assert paced(links, _ranks((0, 1)), "all_gather", 120e6).slowest_s == pytest.approx(7.5e-3 + 5e-6)


def test_an_exchange_in_pairs_is_one_step_a_distance(tmp_path) -> None:
    links = read_matrix(_written(tmp_path, THREE))
    # distance 1: b -> c 10.007 ms is slowest; distance 2: a -> c 2.002, b -> a 5.005, c -> b 10.007 ms
    found = paced(links, _ranks((0, 1, 2)), "all_to_all", 120e6)
    assert found.slowest_s == pytest.approx(2 * 10.007e-3)


def test_latency_can_be_what_limits() -> None:
    width = np.array([[np.inf, 1e9], [2e9, np.inf]])
    links = LinkMatrix(("a", "b"), width, np.array([[0, 1e-6], [9e-6, 0]]))
    # 8 bytes: 4 ns + 1 us one way, 2 ns + 9 us the other
    found = paced(links, _ranks((0, 1)), "all_gather", 8.0)
    assert found.slowest_s == pytest.approx(9.002e-6) and (found.source, found.destination) == (1, 0)
    with pytest.raises(ValueError, match="two members"):
        paced(links, _ranks((0,)), "all_gather", 8.0)


WRONG = {
    "empty": ("", ["empty", "from,to,gb_per_s,latency_us"]),
    "columns": ("a,b,10\n", ["line 1", "from,to,gb_per_s", "got a,b,10"]),
    "no links": ("from,to,gb_per_s\n", ["no links"]),
    "all at once": (
        "from,to,gb_per_s,latency_us\na,b,10,1\na,a,-1,x\n,c,nan,0\nb,c,1\na,b,9,1\nb,a,inf,-2\n",
        ["line 3: a link from a to itself; leave it out; gb_per_s = '-1' must be a number above 0",
         "latency_us = 'x'",
         "line 4: a name is empty; gb_per_s = 'nan'", "line 5: 3 cells, but the first line has 4",
         "line 6: the link from a to b stands twice", "line 7: gb_per_s = 'inf'", "latency_us = '-2'"],
    ),
    "gaps": (
        "from,to,gb_per_s\na,b,1\nc,d,1\nd,a,1\n",
        ["no link between a and c", "no link between b and c", "no link between b and d"],
    ),
    "very many": (
        "from,to,gb_per_s\n" + "a,b,0\n" * 50, ["line 21: ", "and 30 more"]
    ),
    "other units": (
        "from,to,gb_per_s,latency_us\na,b,2.5e10,0\na,c,1_0,0\nb,c,1,1e10\n",
        ["line 2: gb_per_s = '2.5e10'", "1e-06 to 1e+06", "line 3: gb_per_s = '1_0'", "line 4: latency_us = '1e10'"],
    ),
    "many gaps": (
        "from,to,gb_per_s\n" + "".join(f"a,n{number},1\n" for number in range(9)),
        ["no link between n0 and n1", "and 16 more"],
    ),
    "quotes": ('from,to,gb_per_s\n"a,b,1\n', ["not valid CSV"]),
    "too large": (
        "from,to,gb_per_s\n" + "".join(f"a,n{number},1\n" for number in range(2048)), ["2,049 nodes", "at most 2,048"]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "phrases"), WRONG.values(), ids=list(WRONG))
def test_every_fault_of_a_file_is_told(tmp_path, text, phrases) -> None:
    with pytest.raises(InvalidProfile) as raised:
        read_matrix(_written(tmp_path, text))
    for phrase in ["links.csv", *phrases]:
        assert phrase in str(raised.value)


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        read_matrix(tmp_path / "missing.csv")
    path = tmp_path / "links.csv"
    path.write_bytes(b"from,to,gb_per_s\n\xff,b,1\n")
    with pytest.raises(InvalidProfile, match="UTF-8"):
        read_matrix(path)


@st.composite
def matrices(draw: st.DrawFn, least: int = 2, largest: int = 8) -> LinkMatrix:
    size = draw(st.integers(least, largest))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    width = random.choice([1e9, 3e9, 10e9, 25e9, 100e9], (size, size))
    latency = random.choice([0.0, 1e-6, 20e-6], (size, size))
    np.fill_diagonal(width, np.inf)
    np.fill_diagonal(latency, 0.0)
    return LinkMatrix(tuple(f"n{number}" for number in range(size)), width, latency)


@given(matrices(), st.sampled_from(LINK_COLLECTIVES), st.floats(1, 1e10), st.randoms(use_true_random=False))
def test_renaming_nodes_changes_nothing(links, collective, num_bytes, random) -> None:
    order = np.arange(links.size)
    moved = order.copy()
    random.shuffle(moved)
    renamed = LinkMatrix(
        tuple(links.names[place] for place in moved),
        links.bandwidth_bytes_per_s[np.ix_(moved, moved)],
        links.latency_s[np.ix_(moved, moved)],
    )
    there = np.argsort(moved)[None, :]
    before = paced(links, order[None, :], collective, num_bytes)
    assert paced(renamed, there, collective, num_bytes).slowest_s == before.slowest_s


@given(matrices(), st.floats(1, 1e10))
def test_a_ring_whose_members_wait_only_for_their_part(links, num_bytes) -> None:
    # no step is kept for all: member i sends once it has sent and received what came before
    size = links.size
    order = np.arange(size)
    send_s = links.alone_s(num_bytes / size)[order, np.roll(order, -1)]
    done = np.zeros(size)
    for _ in range(size - 1):
        done = np.maximum(done, np.roll(done, 1)) + send_s
    found = paced(links, order[None, :], "all_gather", num_bytes)
    assert found.slowest_s == pytest.approx(done.max())


@given(st.integers(2, 9), st.sampled_from(LINK_COLLECTIVES), st.randoms(use_true_random=False))
def test_permuting_equal_ranks_changes_nothing(size, collective, random) -> None:
    width = np.full((size, size), 7e9)
    links = LinkMatrix(tuple(map(str, range(size))), width, np.full((size, size), 3e-6))
    moved = np.arange(size)
    random.shuffle(moved)
    times = [paced(links, order[None, :], collective, 1e6).slowest_s for order in (np.arange(size), moved)]
    assert times[0] == times[1]
    # equal links: the well-known steps x (latency + part / bandwidth)
    repeat = (2 if collective == "all_reduce" else 1) * (size - 1)
    assert times[0] == pytest.approx(repeat * (3e-6 + 1e6 / size / 7e9))
