"""`towtank predict`: one training step on the clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from towtank.cli.failure import InputError, Inputs
from towtank.cli.options import Json, Profiles
from towtank.cli.surroundings import Background, Placement, PlacementSeed, surroundings_of

if TYPE_CHECKING:
    from towtank.simulator.plan import Plan
    from towtank.simulator.predict import Prediction

EXAMPLES = """\
\b
Examples:
  towtank predict --model megatron-1t --machine selene --stack megatron-2021 \\
      --set tensor_x=8,pipeline=64,data=6,global_batch=3072,recompute=full,precision=fp16
  towtank predict --model llama3-8b --machine dgx-h100:nodes=8 --stack torchtitan \\
      --set data=64,zero_stage=3,micro_batch=2,global_batch=128
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


_Model = Annotated[str, _option("--model", "M", "Name of a model, or a model YAML or config.json.")]
_Machine = Annotated[
    str, _option("--machine", "X", "Machine such as selene, dgx-h100:nodes=64 or alps:taper=0.5.")
]
_PlanFile = Annotated[Path | None, _option("--plan", "FILE", "Plan file.")]
_Settings = Annotated[
    list[str] | None,
    _option("--set", "KEY=VALUE,...", "Fields of the plan; they override those of --plan. Repeatable."),
]
_Devices = Annotated[int | None, _option("--devices", "N", "Devices that the plan must occupy.")]
_Stack = Annotated[str, typer.Option("--stack", metavar="S", help="Software that the job runs on.")]
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

    model: str
    machine: str
    plan: Path | None
    settings: Sequence[str]
    devices: int | None
    stack: str
    engine: str
    breakdown: str | None
    profiles: tuple[Path, ...]
    ignored_keys: Sequence[str]
    around: tuple[str, int, str | None]
    """Placement, its seed, and background traffic."""


def predict(
    model: _Model,
    machine: _Machine,
    plan: _PlanFile = None,
    settings: _Settings = None,
    devices: _Devices = None,
    stack: _Stack = "megatron-core",
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
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.predict import EngineName
    from towtank.simulator.predict import predict as predict_step
    from towtank.simulator.stacks.load import load_stack

    inputs = Inputs()
    model = inputs.take(lambda: _model(job.model, job.ignored_keys))
    machine = inputs.take(lambda: load_machine(job.machine, job.profiles))
    stack = inputs.take(lambda: load_stack(job.stack))
    plan = inputs.take(lambda: _plan(job.plan, job.settings))
    inputs.take(lambda: _one_of("--engine", job.engine, _ENGINES))
    inputs.take(lambda: _one_of("--breakdown", job.breakdown, (None, *_DETAILS)))
    around = inputs.take(lambda: surroundings_of(*job.around))
    inputs.check()
    assert model and machine and stack and plan and around  # else check has raised
    return predict_step(
        model,
        machine,
        plan,
        stack=stack,
        engine=cast(EngineName, job.engine),
        devices=job.devices,
        profile_dirs=job.profiles,
        surroundings=around,
    )


def _model(reference: str, ignore_keys: Sequence[str]) -> Any:
    from towtank.simulator.models.load import load_model

    if ignore_keys and not (reference.endswith(".json") or Path(reference).is_dir()):
        raise InputError(
            f"--ignore-config-key {' '.join(ignore_keys)} concerns a config.json, but --model is {reference!r}; "
            "leave it out"
        )
    return load_model(reference, ignore_keys=ignore_keys)


def _plan(path: Path | None, settings: Sequence[str]) -> "Plan":
    from towtank.simulator.plan_file import load_plan, parse_settings, plan_from_mapping

    changes: Mapping[str, Any] = parse_settings(",".join(settings))
    if path is not None:
        return load_plan(path, changes)
    if not changes:
        raise InputError(
            "no plan is given; give --plan FILE, or fields such as --set tensor_x=8,data=2,global_batch=64"
        )
    return plan_from_mapping(changes, "--set")


def _one_of(option: str, word: str | None, known: Sequence[str | None]) -> None:
    if word not in known:
        from towtank.hardware_profiles.nearest import did_you_mean

        names = [name for name in known if name]
        raise InputError(
            f"{option} {word} is unknown{did_you_mean(str(word), names)} (known: {', '.join(names)})"
        )


def _write_trace(prediction: "Prediction", path: Path) -> None:
    from towtank.simulator.trace import write_trace

    try:
        write_trace(prediction, path)
    except OSError as error:
        raise InputError(f"--trace {path}: cannot be written: {error.strerror or error}") from error
