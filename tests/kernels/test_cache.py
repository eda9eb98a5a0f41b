"""Tuned tiles: kept for what they were measured for, by processes that write at once, and through a crash."""

import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from towtank.kernels import cache, store
from towtank.kernels.cache import Question, Tuned, add_trial, best_tile, keep, lookup, shape_class, trials

pytest.importorskip("torch")
QUESTION = Question("matmul", "library", "float32", {"m": 100, "n": 256, "k": 257}, "cpu")
TUNED = Tuned({"swap": 1}, 1e-3, 2e-3, {"m": 100, "n": 256, "k": 257}, "2026-11-21")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path))
    return tmp_path


def test_class_of_a_shape_is_the_next_power_of_two():
    assert shape_class({"m": 100, "n": 256, "k": 257}) == "m<=128 n<=256 k<=512"
    assert shape_class({"m": 1}) == "m<=1"
    assert shape_class({"causal": 1, "window": 0}) == "causal<=1 window<=0"


def test_a_tile_is_found_by_whoever_names_the_options_and_whoever_leaves_them_out():
    sizes = {"batch": 2, "sequence": 100, "heads": 4, "kv_heads": 4, "head_dim": 64}
    asked = Question("attention", "triton", "bfloat16", sizes, "cpu")
    keep(asked, TUNED)
    for same in ({"causal": 1, "window": 0, **sizes}, {**sizes, "window": 0, "causal": 1}):
        assert lookup(replace(asked, sizes=same)) == TUNED
    for other in ({**sizes, "causal": 0}, {**sizes, "window": 64}):
        assert lookup(replace(asked, sizes=other)) is None


def test_a_tile_is_found_for_its_class_and_for_nothing_else():
    keep(QUESTION, TUNED)
    assert lookup(replace(QUESTION, sizes={"m": 65, "n": 200, "k": 500})) == TUNED
    assert lookup(replace(QUESTION, sizes={"m": 129, "n": 256, "k": 257})) is None
    assert lookup(replace(QUESTION, dtype="bfloat16")) is None
    assert lookup(replace(QUESTION, kernel="matmul_dgrad")) is None


def test_other_software_or_another_device_asks_anew(monkeypatch):
    keep(QUESTION, TUNED)
    monkeypatch.setattr(cache, "software", lambda device: "torch 99")
    assert lookup(QUESTION) is None
    monkeypatch.undo()
    monkeypatch.setattr(cache, "device_name", lambda device: "another")
    assert lookup(QUESTION) is None


def test_other_threads_ask_anew():
    import torch

    before = torch.get_num_threads()
    keep(QUESTION, TUNED)
    try:
        torch.set_num_threads(before + 1)
        assert lookup(QUESTION) is None
    finally:
        torch.set_num_threads(before)
    assert lookup(QUESTION) == TUNED


def test_default_is_used_where_nothing_was_found_or_the_parameters_have_changed():
    assert best_tile(QUESTION, [{"swap": 0}, {"swap": 1}]) == {"swap": 0}
    keep(QUESTION, TUNED)
    assert best_tile(QUESTION, [{"swap": 0}, {"swap": 1}]) == {"swap": 1}
    assert best_tile(QUESTION, [{"swap": 0, "rows": 4}]) == {"swap": 0, "rows": 4}


def test_a_file_that_was_cut_off_counts_as_none_and_is_written_anew(folder):
    keep(QUESTION, TUNED)
    path = folder / cache.FILE
    path.write_bytes(path.read_bytes()[:-20])
    assert lookup(QUESTION) is None
    keep(QUESTION, TUNED)
    assert lookup(QUESTION) == TUNED


def test_a_writer_that_dies_leaves_the_old_file(folder, monkeypatch):
    keep(QUESTION, TUNED)

    def die(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "replace", die)
    with pytest.raises(OSError, match="No space"):
        keep(QUESTION, replace(TUNED, tile={"swap": 0}))
    assert lookup(QUESTION) == TUNED
    assert [each.name for each in folder.iterdir() if each.suffix != ".lock"] == [cache.FILE]


@pytest.mark.parametrize(
    "kept",
    [
        [], {"best": []}, {"best": {"tile": {"swap": 1}}}, {"best": {**asdict(TUNED), "tile": {"swap": "1"}}},
        {"trials": []}, {"trials": {"m=100 n=256 k=257": [[1], 2, [{"swap": 1}, "fast"], [{"swap": 1}, -1.0]]}},
    ],
)  # fmt: skip
def test_what_was_edited_by_hand_counts_as_none(kept, folder):
    store.update(folder / cache.FILE, lambda entries: entries.update({QUESTION.key: kept}))
    assert lookup(QUESTION) is None
    assert trials(QUESTION) == []
    add_trial(QUESTION, {"swap": 0}, 0.5)
    keep(QUESTION, TUNED)
    assert trials(QUESTION) == [({"swap": 0}, 0.5)]
    assert lookup(QUESTION) == TUNED


def test_a_tile_that_no_search_could_choose_is_not_used():
    keep(QUESTION, replace(TUNED, tile={"swap": 7}))
    assert best_tile(QUESTION, [{"swap": 0}, {"swap": 1}]) == {"swap": 0}


def test_tiles_of_the_generated_multiply_come_from_the_whole_space():
    from towtank.kernels.c_code.compiler import here
    from towtank.kernels.c_code.tiles import default, space

    asked, first = replace(QUESTION, backend="c"), default(here(), 1)
    other = space(here(), 1)[-1]
    keep(asked, replace(TUNED, tile=other))
    assert best_tile(asked, [first]) == other
    keep(asked, replace(TUNED, tile={**other, "mc": 10**9}))
    assert best_tile(asked, [first]) == first


WRITER = """
import sys
from towtank.kernels import cache
from towtank.kernels.cache import Question, add_trial
cache.device_name = cache.software = lambda device: "any"  # they would import torch
question = Question("matmul", "library", "float32", {"m": 1, "n": 1, "k": 1}, "cpu")
for number in range(10):
    add_trial(question, {"writer": int(sys.argv[1]), "number": number}, 1.0)
"""


def test_two_processes_that_write_at_once_lose_nothing():
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(each)]) for each in (0, 1)]
    assert [each.wait(timeout=120) for each in writers] == [0, 0]
    (entry,) = store.read(store.cache_folder() / cache.FILE).values()
    found = entry["trials"]["m=1 n=1 k=1"]
    expected = {(writer, number) for writer in (0, 1) for number in range(10)}
    assert {(tile["writer"], tile["number"]) for tile, _ in found} == expected
    assert len(found) == 20


def test_trials_belong_to_exactly_their_sizes():
    add_trial(QUESTION, {"swap": 1}, 0.5)
    assert trials(QUESTION) == [({"swap": 1}, 0.5)]
    assert trials(replace(QUESTION, sizes={"m": 101, "n": 256, "k": 257})) == []
    add_trial(QUESTION, {"swap": 0}, 0.7)
    add_trial(QUESTION, {"swap": 1}, 0.4)  # measured again
    assert trials(QUESTION) == [({"swap": 0}, 0.7), ({"swap": 1}, 0.4)]
