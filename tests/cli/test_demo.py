"""The demo: four published runs. Figures of the sources are worked out here by hand."""

import json

import pytest

from towtank.validation.demo import demo_runs


def test_measured_step_times_by_hand() -> None:
    runs = {run.id: run for run in demo_runs()}
    assert len(runs) == 4
    # Narayanan et al., eq. 3: 96 B s l h^2 (1 + s/6h + V/16lh)
    flop = 96 * 3072 * 2048 * 128 * 25600**2 * (1 + 2048 / (6 * 25600) + 51200 / (16 * 128 * 25600))
    assert runs["mlm21-t1-10"].step_time_s == pytest.approx(flop / (3072 * 163e12))
    assert runs["mlm21-t1-10"].step_time_s == pytest.approx(102.6, abs=0.1)
    # 5.438e18 FLOP a batch at 620.1 PFLOP/s
    assert runs["axonn24-perlmutter-GPT-40B-4096"].step_time_s == pytest.approx(8.77, abs=0.01)
    assert [runs[name].step_time_s for name in ("dgxc-116", "jup-32b-2048-job1364775")] == [17.7, 6.2316]
    assert [run.num_devices for run in demo_runs()] == [3072, 4096, 2304, 2048]


def test_demo_predicts_every_run_plausibly(towtank) -> None:
    found = json.loads(towtank("demo", "--json").out)
    assert found["schema"] == 1
    rows = found["runs"]
    assert len(rows) == 4
    for row in rows:
        assert row["relative_error"] == pytest.approx(row["predicted_s"] / row["measured_s"] - 1)
        # a demo that is a third off is not shown to anybody
        assert abs(row["relative_error"]) < 0.33, row
        assert row["source"]


def test_demo_for_people(towtank) -> None:
    out = towtank("demo").out
    rows = {row["title"]: row for row in json.loads(towtank("demo", "--json").out)["runs"]}
    for title, row in rows.items():
        line = next(line for line in out.splitlines() if line.strip().startswith(title))
        assert f"{100 * row['relative_error']:+.1f} %" in line
    assert max(map(len, out.splitlines())) <= 100
