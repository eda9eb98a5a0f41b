"""`towtank predict`: one training step on the clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from towtank.cli.failure import InputError, Inputs
from towtank.cli.options import Json, Machine, Model, Profiles, Stack
from towtank.cli.surroundings import Background, Placement, PlacementSeed, surroundings_of
from towtank.cli.words import one_of

if TYPE_CHECKING:
    from towtank.simulator.predict import Prediction

EXAMPLES = """\
\b
Examples:
  towtank predict --model megatron-1t --machine selene --stack megatron-2021 \\
      --set tensor_x=8,pipeline=64,data=6,global_batch=3072,recompute=full,precision=fp16
  towtank predict --model llama3-8b --machine dgx-h100:nodes=8 --stack torchtitan \\
      --set data=64,zero_stage=3,micro_batch=2,global_batch=128
  towtank predict --plan plan.yaml    (a plan file may name model, machine and stack)
  towtank predict --model my/config.json --machine jupiter --plan plan.yaml --set micro_batch=2 --json
  towtank predict --model llama3-70b --machine alps --plan plan.yaml --trace step.json.gz
  towtank predict --model axonn-40b --machine frontier --stack axonn --plan plan.yaml \\
      --placement scattered:0.5 --seed 1 --background global=0.3,interface=0.1

\b
The fields of a plan are described in towtank.Plan; a wrong one is answered with the known ones.
"""

_ENGINES = ("compiled", "simpy", "flows")
_ENGINE_HELP = "Fast engine, reference engine, or that one with collectives as flows that share the network."
_DETAILS = ("layers", "operations")


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


_PlanFile = Annotated[
    Path | None, _option("--plan", "FILE", "Plan file; it may also name model, machine and stack.")
]
_Settings = Annotated[
    list[str] | None,
    _option("--set", "KEY=VALUE,...", "Fields of the plan; they override those of --plan. Repeatable."),
]
_Devices = Annotated[int | None, _option("--devices", "N", "Devices that the plan must occupy.")]
_Engine = Annotated[str, typer.Option("--engine", metavar="compiled|simpy|flows", help=_ENGINE_HELP)]
_Breakdown = Annotated[
    str | None, _option("--breakdown", "layers|operations", "Add the time of each layer or operation.")
]
_TraceFile = Annotated[
    Path | None,
    _option(
        "--trace", "FILE", "Write a Chrome trace (Perfetto opens it); compressed if the name ends in .gz."
    ),
]
_Seed = Annotated[
    int | None,
    _option("--quantiles", "SEED", "Add how much steps differ where devices do: Monte Carlo with this seed."),
]
_IgnoredKeys = Annotated[
    list[str] | None,
    _option("--ignore-config-key", "KEY", "Key of a config.json that does not change the shape. Repeatable."),
]


@dataclass(frozen=True)
class _Job:
    """What the user asks for, as given."""

    model: str | None
    machine: str | None
    plan: Path | None
    settings: Sequence[str]
    devices: int | None
    stack: str | None
    engine: str
    breakdown: str | None
    profiles: tuple[Path, ...]
    ignored_keys: Sequence[str]
    around: tuple[str, int, str | None]
    """Placement, its seed, and background traffic."""


def predict(
    model: Model = None,
    machine: Machine = None,
    plan: _PlanFile = None,
    settings: _Settings = None,
    devices: _Devices = None,
    stack: Stack = None,
    engine: _Engine = "compiled",
    breakdown: _Breakdown = None,
    json: Json = False,
    trace: _TraceFile = None,
    quantiles: _Seed = None,
    placement: Placement = "contiguous",
    seed: PlacementSeed = 0,
    background: Background = None,
    profiles: Profiles = None,
    ignore_config_key: _IgnoredKeys = None,
) -> None:
    """Predict step time, memory and throughput of a training job.

    A plan that does not fit into memory is predicted all the same (exit code 0); the output says how much is
    missing and where.
    """
    keys, folders, sets = ignore_config_key or (), tuple(profiles or ()), settings or ()
    around = (placement, seed, background)
    job = _Job(model, machine, plan, sets, devices, stack, engine, breakdown, folders, keys, around)
    prediction = _predicted(job)
    found = _quantiles(prediction, quantiles, folders)
    if trace is not None:
        _write_trace(prediction, trace)
    detail = cast(Literal["layers", "operations"] | None, breakdown)
    if json:
        _print_json(prediction, detail, found)
    else:
        _print_text(prediction, detail, found, trace)


def _print_text(
    prediction: "Prediction",
    detail: Literal["layers", "operations"] | None,
    quantiles: dict[float, float],
    trace: Path | None,
) -> None:
    from towtank.cli.prediction_text import prediction_text
    from towtank.cli.text import emit, seconds

    emit(prediction_text(prediction, detail))
    if quantiles:
        spread = (f"{100 * p:.0f} % below {seconds(t)}" for p, t in quantiles.items())
        emit("\nSteps differ: " + ", ".join(spread))
    if trace is not None:
        emit(f"\ntrace: {trace} (open it in Perfetto, ui.perfetto.dev, or in chrome://tracing)")


def _quantiles(prediction: "Prediction", seed: int | None, folders: tuple[Path, ...]) -> dict[float, float]:
    """Step times in seconds by the share of steps below them; empty where nobody asked."""
    if seed is None:
        return {}
    from towtank.simulator.quantiles import step_quantiles

    shares = (0.05, 0.5, 0.95)
    return dict(zip(shares, step_quantiles(prediction, shares, seed=seed, profile_dirs=folders), strict=True))


def _print_json(
    prediction: "Prediction", detail: Literal["layers", "operations"] | None, quantiles: dict[float, float]
) -> None:
    from towtank import __version__
    from towtank.cli.text import emit_json
    from towtank.simulator.report.mapping import prediction_to_mapping
    from towtank.validation.intervals import attach_interval, interval_to_mapping

    document = prediction_to_mapping(prediction, __version__, detail)
    if quantiles:
        document["step_time_quantiles_s"] = {str(share): found for share, found in quantiles.items()}
    emit_json(document | interval_to_mapping(attach_interval(prediction)))


def _predicted(job: _Job) -> "Prediction":
    """Load everything, so that all faults are told at once, then predict."""
    from towtank.cli.job import load_job
    from towtank.simulator.predict import EngineName
    from towtank.simulator.predict import predict as predict_step

    inputs = Inputs()
    inputs.take(lambda: one_of("--engine", job.engine, _ENGINES))
    inputs.take(lambda: one_of("--breakdown", job.breakdown, (None, *_DETAILS)))
    around = inputs.take(lambda: surroundings_of(*job.around))
    loaded = load_job(
        job.plan,
        job.model,
        job.machine,
        job.stack,
        job.profiles,
        job.settings,
        ignore_keys=job.ignored_keys,
        inputs=inputs,
    )
    assert around is not None  # else load_job has raised
    return predict_step(
        loaded.model,
        loaded.machine,
        loaded.plan,
        stack=loaded.stack,
        engine=cast(EngineName, job.engine),
        devices=job.devices,
        profile_dirs=job.profiles,
        surroundings=around,
    )


def _write_trace(prediction: "Prediction", path: Path) -> None:
    from towtank.simulator.trace import write_trace

    try:
        write_trace(prediction, path)
    except OSError as error:
        raise InputError(f"--trace {path}: cannot be written: {error.strerror or error}") from error
