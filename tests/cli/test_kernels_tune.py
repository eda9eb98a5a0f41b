"""`towtank kernels tune` with tiles: searched, kept, gone on with, and used."""

import json

import pytest

torch = pytest.importorskip("torch")
CALL = ("kernels", "tune", "--kernel", "matmul", "--shape", "48x64x80", "--device", "cpu", "--backend", "c")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    from towtank.kernels import launch

    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(launch, "_PASSED", set())


def test_tiles_are_searched_kept_and_used(towtank):
    from towtank.kernels.cache import Question, lookup
    from towtank.kernels.launch import has_passed, launch

    found = json.loads(towtank(*CALL, "--budget", "60s", "--trials", "2", "--json").out)
    assert (found["measured"], found["known"], found["refused"]) == (2, 0, 0)
    assert found["gain"] >= 1.0 and found["sizes"] == {"m": 48, "n": 64, "k": 80}
    kept = lookup(Question("matmul", "c", "float32", {"m": 48, "n": 64, "k": 80}, "cpu"))
    assert kept is not None and kept.tile == found["tile"]
    assert has_passed("matmul", "c", "float32", found["tile"], "cpu")
    x, weight = torch.ones(48, 80), torch.ones(64, 80)
    (y,) = launch("matmul", (x, weight), {"m": 48, "n": 64, "k": 80}, backend="c")
    assert bool((y == 80).all())
    # once more: goes on from what was measured
    again = json.loads(towtank(*CALL, "--trials", "1", "--json").out)
    assert (again["measured"], again["known"]) == (1, 2)
    shown = towtank(*CALL, "--trials", "1").out
    assert "the speed of the default" in shown and "3 of an earlier search" in shown


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--budget", "soon"), "--budget is a time such as 60s, 2m or 1h; got 'soon'"),
        (("--backend", "c", "--device", "cpu"), "give its --shape, such as 4096x4096x4096"),
        (
            ("--kernel", "rms_norm", "--shape", "1x2x3", "--backend", "library"),
            "orders of operands are those of matmul",
        ),
        (("--shape", "4096x4096", "--backend", "c", "--device", "cpu"), "--shape of matmul is m x n x k"),
        (
            (*CALL[2:], "--out", "modes.csv", "--profile", "h200-141gb"),
            "--out, --profile: not read here: tiles",
        ),
        (
            ("--backend", "library", "--trials", "3", "--fresh"),
            "--trials, --fresh: not read here: of the library",
        ),
        (
            ("--backend", "library", "--out", "no/modes.csv"),
            "--out no/modes.csv: the folder no does not exist",
        ),
        ((*CALL[2:4], "--shape", "9999999x9999999x9999999", *CALL[6:]), "choose smaller sizes"),
    ],
)
def test_bad_input_is_one_clear_message(towtank, arguments, text):
    done = towtank("kernels", "tune", *arguments)
    assert done.code == 2
    assert text in done.err and "Traceback" not in done.err


def test_a_cache_that_cannot_be_written_is_one_clear_message(towtank, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path / "file"))
    for call in (
        CALL,
        ("kernels", "validate", "--kernel", "gelu", "--backend", "library", "--dtype", "fp32"),
    ):
        done = towtank(*call)
        assert done.code == 2
        assert str(tmp_path / "file") in done.err and "Traceback" not in done.err


def test_what_is_no_compiler_is_said(towtank, monkeypatch, tmp_path):
    silent = tmp_path / "cc"
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)
    monkeypatch.setenv("CC", str(silent))
    done = towtank(*CALL)
    assert done.code == 2 and f"{silent} is no C compiler" in done.err


def test_a_missing_compiler_is_said_with_what_to_do(towtank, monkeypatch):
    monkeypatch.setenv("CC", "/opt/none/cc")
    done = towtank(*CALL)
    assert done.code == 2 and "the C compiler that CC names was not found: /opt/none/cc" in done.err


def test_a_search_that_is_broken_off_goes_on(towtank, monkeypatch):
    from towtank.autotune.tiles import tuner

    real, asked = tuner._Measurements.seconds, []

    def seconds(self, tile):
        asked.append(tile)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self, tile)

    monkeypatch.setattr(tuner._Measurements, "seconds", seconds)
    done = towtank(*CALL, "--budget", "60s")
    assert done.code == 130
    assert "broken off: 1 tile of this product is measured" in done.err and "Traceback" not in done.err
    found = json.loads(towtank(*CALL, "--trials", "1", "--json").out)
    assert (found["known"], found["measured"]) == (1, 1)
