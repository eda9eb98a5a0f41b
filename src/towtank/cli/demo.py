"""`towtank demo`: four published runs, predicted and measured side by side."""

from typing import TYPE_CHECKING, Any

from towtank.cli.options import Json

if TYPE_CHECKING:
    from towtank.simulator.predict import Prediction
    from towtank.validation.demo import PublishedRun

EXAMPLES = """\
\b
Examples:
  towtank demo
  towtank demo --json
"""

_FITTED = (
    "Stacks were fitted to published runs, and some of these may be among them: the errors above are not "
    "errors on runs that were held out."
)


def demo(json: Json = False) -> None:
    """Predict four published runs and print them beside what was measured."""
    from towtank.cli.text import emit, emit_json
    from towtank.validation.demo import demo_runs

    results = [(run, _predicted(run)) for run in demo_runs()]
    if json:
        emit_json({"runs": [_mapping(run, prediction) for run, prediction in results]})
        return
    emit(_text(results))


def _predicted(run: "PublishedRun") -> "Prediction":
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.predict import predict
    from towtank.simulator.stacks.load import load_stack
    from towtank.validation.demo import GridSearch

    if not isinstance(run.job, GridSearch):
        return predict(run.model, run.machine, run.job, stack=run.stack)
    from towtank.simulator.ranked_grids import simulate_ranked_grids

    machine, stack = load_machine(run.machine), load_stack(run.stack)
    ranked = simulate_ranked_grids(run.model, machine, stack, run.job.devices, run.job.global_batch)
    return ranked[0].prediction


def _mapping(run: "PublishedRun", prediction: "Prediction") -> dict[str, Any]:
    from towtank.simulator.plan_file import plan_to_mapping

    return {
        "id": run.id,
        "title": run.title,
        "devices": run.num_devices,
        "plan": plan_to_mapping(prediction.plan),
        "measured_s": run.step_time_s,
        "predicted_s": prediction.step_time_s,
        "relative_error": run.relative_error(prediction.step_time_s),
        "fits": prediction.fits,
        "as_printed": run.as_printed,
        "source": run.source,
    }


def _text(results: "list[tuple[PublishedRun, Prediction]]") -> str:
    from towtank.cli.prediction_text import layout
    from towtank.cli.text import count, paragraph, seconds, table

    rows = [
        (
            run.title,
            count(run.num_devices),
            seconds(run.step_time_s),
            seconds(prediction.step_time_s),
            f"{100 * run.relative_error(prediction.step_time_s):+.1f} %",
            run.as_printed,
        )
        for run, prediction in results
    ]
    heads = ("published run", "devices", "measured", "predicted", "error", "printed as")
    notes = [
        paragraph(f"[{number}] {run.title}: {layout(prediction.plan)}. {run.source}")
        for number, (run, prediction) in enumerate(results, 1)
    ]
    return "\n".join(
        [
            "Step times of published training runs, predicted without running anything\n",
            table(rows, heads, right=(1, 2, 3, 4)),
            "",
            paragraph(_FITTED, indent=0),
            "\nPlans and sources",
            *notes,
        ]
    )
