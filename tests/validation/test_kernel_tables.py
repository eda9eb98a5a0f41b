"""The section on kernel tables: worst group of each kind, in the text, the page and the figures."""

from towtank.cli.validation_text import report_text
from towtank.hardware_profiles.curves.left_out import KernelErrors
from towtank.validation.evaluate import evaluate
from towtank.validation.kernel_tables import HEADING, kernel_errors, kernel_figures
from towtank.validation.page import page
from towtank.validation.report import report_on, to_mapping
from towtank.validation.rows import RUNS, read_runs

GROUPS = (
    KernelErrors("matmul", "b200", "bf16", 100, 0.05, 0.3),
    KernelErrors("matmul", "b200", "fp8", 50, 0.07, 0.2),
    KernelErrors("experts", "b200", "fp8", 10, 0.16, 0.5),
)


def test_a_figure_is_that_of_the_worst_device_and_precision() -> None:
    found = {figure.key: figure for figure in kernel_figures(GROUPS)}
    median, p90 = found["kernels_matmul_median"], found["kernels_matmul_p90"]
    assert (round(median.value or 0, 9), median.rows, median.reached) == (7.0, 150, True)
    assert (round(p90.value or 0, 9), p90.reached) == (30.0, False)
    assert found["kernels_experts_median"].reached is False
    assert found["kernels_attention_median"].value is None


def test_the_section_is_in_text_page_and_json() -> None:
    report = report_on(evaluate(read_runs(RUNS)[:2], jobs=1), (), GROUPS)
    assert HEADING in report_text(report)
    assert HEADING in page(report)
    assert to_mapping(report)["summary"]["kernel_tables"][2] == {
        "kind": "experts", "device": "b200", "precision": "fp8", "rows": 10, "median": 0.16, "p90": 0.5,
    }  # fmt: skip
    assert HEADING not in report_text(report_on(report.results))


def test_the_shipped_sample_reaches_every_target() -> None:
    assert all(figure.reached for figure in kernel_figures(kernel_errors()))
