"""Groups and figures."""

import pytest
from made_runs import result

from towtank.validation.figures import figure_of, figures
from towtank.validation.grouping import (
    definitions,
    in_group,
    precision_class,
    resolution,
    scale,
    scale_order,
    source_family,
    sweeps,
)

NANOTRON = {"source": "Nanotron Ultra-Scale Playbook sweep", "model": "Llama-like 1B"}


@pytest.mark.parametrize(
    ("devices", "name"),
    [
        (1, "1 to 8"),
        (8, "1 to 8"),
        (9, "9 to 64"),
        (512, "65 to 512"),
        (4096, "513 to 4096"),
        (4097, "above 4096"),
    ],
)
def test_scales(devices: int, name: str) -> None:
    assert scale(devices) == name


def test_scales_sort_by_size() -> None:
    names = [scale(devices) for devices in (10_000, 100, 1000, 1, 10)]
    assert sorted(names, key=scale_order) == [scale(devices) for devices in (1, 10, 100, 1000, 10_000)]


def test_a_sweep_of_single_iterations_resolves_less() -> None:
    assert resolution("BLOOM 384 A100") == 0.05
    assert resolution("MPT, h100-80gb-sxm") == definitions()["resolution"] == 0.03


def test_families_and_precisions() -> None:
    assert (
        source_family("NVIDIA-NeMo/Megatron-Bridge performance summary (26.04)") == "NVIDIA Megatron-Bridge"
    )
    assert source_family("NVIDIA NeMo Framework performance page (25.04)") == "NVIDIA NeMo"
    assert source_family("BigScience BLOOM chronicles (prequel)") == "BigScience BLOOM"
    assert source_family("My lab (2026)") == "My lab"
    assert [precision_class(name) for name in ("bf16", "mxfp8", "nvfp4", "tf32")] == [
        "16-bit", "fp8 class", "fp8 class", "32-bit",
    ]  # fmt: skip


def test_sweeps_are_told_apart_by_model_and_devices() -> None:
    rows = [result(1.0, 1.0, **NANOTRON, gpus=gpus) for gpus in (8, 8, 16)]
    rows += [result(1.0, None, **NANOTRON, gpus=8), result(1.0, 1.0)]
    found = sweeps(rows)
    assert {name: len(group) for name, group in found.items()} == {
        "Nanotron, Llama-like 1B, 8": 2, "Nanotron, Llama-like 1B, 16": 1,
    }  # fmt: skip
    assert in_group(rows[0], "chaotic")
    assert not in_group(rows[-1], "chaotic")


def _value(found, key):
    return next(figure for figure in found if figure.key == key)


def test_figures_leave_out_the_erratic_sweep_and_incomplete_rows() -> None:
    rows = [result(1.0, 1.05) for _ in range(12)]
    rows += [result(1.0, 9.0, **NANOTRON), result(1.0, 7.0, gate=False), result(1.0, 1.3, moe=True)]
    found = figures(rows)
    assert _value(found, "coverage").value == pytest.approx(100.0)
    assert _value(found, "coverage").rows == 14
    dense = _value(found, "dense_median")
    assert (dense.value, dense.rows, dense.reached) == (pytest.approx(5.0), 12, True)
    assert _value(found, "moe_median").value == pytest.approx(30.0)
    assert _value(found, "moe_median").reached is False
    assert _value(found, "worst_device_median").value == pytest.approx(5.0)
    assert _value(found, "sc21_mean").value is None
    assert _value(found, "sc21_mean").reached is None


def test_named_tables_of_papers_are_found() -> None:
    rows = [result(1.0, 1.04, id="mlm21-t1-01"), result(1.0, 2.0, id="mlm21-t2-01")]
    assert _value(figures(rows), "sc21_mean").value == pytest.approx(4.0)
    paper = {"source": "Reducing Activation Recomputation (arXiv 2205.05198)"}
    rows = [
        result(1.0, 1.02, **paper, source_locator="Table 5 with Table 3 config"),
        result(1.0, 2.0, **paper, source_locator="abstract"),
    ]
    assert _value(figures(rows), "selective_mean").value == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("key", "value", "reached"),
    [
        ("coverage", 0.97, True), ("coverage", 0.96, False), ("dense_median", 0.06, True),
        ("dense_median", 0.061, False),
        ("scale_slope", -0.014, True), ("scale_slope", -0.016, False), ("interval_coverage", 0.85, True),
        ("interval_coverage", 0.96, False), ("dense_skill", 0.4, True),
    ],
)  # fmt: skip
def test_targets(key: str, value: float, reached: bool) -> None:
    assert figure_of(key, value, 1).reached is reached


def test_no_figure_has_two_targets() -> None:
    for spec in definitions()["figures"].values():
        assert len({"at_most", "at_least", "within", "between"} & set(spec)) <= 1
