"""Building curves from tables: gaps, and shapes that no fit may see."""

import math

import numpy as np
import pandas as pd
import pytest

from towtank.hardware_profiles.compact.left_out import fitted, marked, write_sample
from towtank.hardware_profiles.compact.published import collective_rows
from towtank.hardware_profiles.compact.tables import filled, kriged
from towtank.hardware_profiles.curves.left_out import is_left_out, sample


def test_a_gap_lies_between_its_neighbours_in_log_log():
    values, gaps = filled({(1,): 2.0, (4,): 8.0}, [[1, 2, 4, 8]])
    assert gaps == 2
    assert values == pytest.approx([2.0, 4.0, 8.0, 8.0])


def test_a_gap_without_neighbours_on_one_axis_takes_those_of_the_next():
    values, gaps = filled({(1, 10): 3.0, (1, 20): 5.0}, [[1, 2], [10, 20]])
    assert gaps == 2
    assert values == pytest.approx([3.0, 5.0, 3.0, 5.0])
    with pytest.raises(ValueError, match="no neighbour"):
        filled({}, [[1, 2]])


def test_kriging_between_two_points_by_hand():
    # known 1 and 3 at 1 and 4, one octave from the gap at 2; mean 2, reach 1, noise 1e-3:
    # weights (K + noise) w = (-1, 1) give w = 1 / (1.001 - e^-2) times (-1, 1), which cancels halfway
    plane = kriged(np.array([[1.0], [math.nan], [3.0]]), ([1, 2, 4], [1]), reach=1.0)
    assert plane[:, 0] == pytest.approx([1.0, 2.0, 3.0])
    # two octaves beyond 4: 2 + (e^-2 - e^-4) / (1.001 - e^-2)
    beyond = kriged(np.array([[1.0], [3.0], [math.nan]]), ([1, 4, 16], [1]), reach=1.0)
    expected = 2 + (math.exp(-2) - math.exp(-4)) / (1.001 - math.exp(-2))
    assert beyond[2, 0] == pytest.approx(expected)


def test_a_step_that_belongs_to_one_row_is_carried_along_it():
    plane = np.zeros((3, 5))
    plane[1] = 1.0
    plane[1, 2] = math.nan
    assert kriged(plane, ([256, 512, 1024], [256, 512, 1024, 2048, 4096]))[1, 2] > 0.6


def table() -> pd.DataFrame:
    sizes = [256, 512, 768, 1024]
    rows = [("h100-80gb-sxm", "bf16", 128, n, k, 12.345678) for n in sizes for k in sizes]
    return pd.DataFrame(rows, columns=["device", "precision", "m", "n", "k", "latency_us"])


def test_left_out_shapes_are_in_the_sample_and_not_in_the_fit(tmp_path):
    marks = marked(table(), "matmul")
    seen = set(zip(fitted(marks).n.tolist(), fitted(marks).k.tolist(), strict=True))
    assert not any(is_left_out("matmul", *shape) for shape in seen)
    path = tmp_path / "sample.csv.gz"
    write_sample(path, {"matmul": marks})
    rows = sample(path)
    assert len(rows) + len(seen) == 16
    assert {row.sizes[1:] for row in rows}.isdisjoint(seen)
    assert rows[0].measured_s == pytest.approx(12.3457e-6)


def test_a_file_of_other_columns_is_refused(tmp_path):
    import gzip

    path = tmp_path / "sample.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(ValueError, match="the columns must be kind, device"):
        sample(path)


def test_collective_times_rise_and_left_out_sizes_lie_between():
    group = {"operation": "all_gather", "num_gpus": 8}
    times = {512: 5.0, 1024: 4.0, 4096: 20.0}
    frame = pd.DataFrame([{**group, "message_bytes": size, "latency_us": us} for size, us in times.items()])
    group = {"operation": "all_reduce", "num_gpus": 8}
    times = {1024: 7.0, 2048: 9.0}
    other = pd.DataFrame([{**group, "message_bytes": size, "latency_us": us} for size, us in times.items()])
    sizes, rows, raised = collective_rows(pd.concat([frame, other]))
    assert sizes == [512, 1024, 2048, 4096]
    # 1024 is raised to the time of 512; 2048 is the geometric mean of 5 and 20
    assert rows[0] == ["all_gather", 8, "5", "5", "10", "20"]
    # 512 takes the latency of 1024; 4096 is on the line through the two, 2 us a KiB
    assert rows[1] == ["all_reduce", 8, "7", "7", "9", "13"]
    assert raised == 1
