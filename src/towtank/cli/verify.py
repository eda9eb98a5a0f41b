"""`towtank verify`: run the plans that a search predicts to be best, and rank them by what they take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.memory_margin import AUTO, MemoryMarginOption
from towtank.cli.options import Json
from towtank.cli.verify_trials import TrialsWish, place_of, run_trials

if TYPE_CHECKING:
    from towtank.autotune.search.records import SearchResult
    from towtank.autotune.task import TuningTask
    from towtank.executor.verify import Verification
    from towtank.simulator.plan import Plan

EXAMPLES = """\
\b
Examples:
  towtank calibrate
  towtank verify --model tiny-llama --devices 4 --global-batch 8 --top 5
  towtank verify --model tiny-llama --devices 2 --global-batch 8 --fix pipeline=1 --json
  towtank verify --model tiny-llama --devices 4 --global-batch 8 --trials 40

\b
Leave the machine alone meanwhile.
"""


def _option(name: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=text, **more)


_Trials = Annotated[
    int | None,
    _option(
        "--trials",
        "N",
        "Run so many plans in all as trials of a study of Optuna: the best predicted ones, then what its sampler "
        "changes on them (splits of layers, recompute intervals, switches).",
        min=1,
        show_default=False,
    ),
]
_Sampler = Annotated[
    str | None, _option("--sampler", "NAME", "Sampler of the study; default: tpe.", show_default=False)
]
_Seed = Annotated[
    int | None, _option("--seed", "N", "Seed of the sampler; default: 0.", min=0, show_default=False)
]
_Study = Annotated[
    str | None,
    _option(
        "--study",
        "NAME",
        "Name of the study; the same name goes on with it; default: verify.",
        show_default=False,
    ),
]
_Storage = Annotated[
    str | None,
    _option(
        "--storage",
        "WHERE",
        "Where the study is kept, as in tune; default: STUDY.journal here.",
        show_default=False,
    ),
]


def verify(
    model: Annotated[str, _option("--model", "M", "Name of a model, or a model YAML or config.json.")],
    global_batch: Annotated[int, _option("--global-batch", "N", "Sequences of one step.")],
    machine: Annotated[
        str, _option("--machine", "X", "This machine: local, or a calibration made here.")
    ] = "local",
    devices: Annotated[
        int | None, _option("--devices", "N", "Processes; default: all.", show_default=False)
    ] = None,
    sequence: Annotated[
        int | None,
        _option("--sequence", "N", "Tokens of one sequence; default: the model's.", show_default=False),
    ] = None,
    stack: Annotated[str, _option("--stack", "S", "Software that limits the space.")] = "towtank-executor",
    fix: Annotated[
        list[str] | None,
        _option("--fix", "FIELD=VALUE", "Only these values, as in tune. Repeatable.", show_default=False),
    ] = None,
    top: Annotated[int, _option("--top", "N", "Plans that run.", min=1)] = 5,
    rounds: Annotated[int, _option("--rounds", "N", "How often the plans take turns.", min=1)] = 3,
    steps: Annotated[int, _option("--steps", "N", "Measured steps in each round.", min=1)] = 4,
    memory_margin: MemoryMarginOption = AUTO,
    trials: _Trials = None,
    sampler: _Sampler = None,
    seed: _Seed = None,
    study: _Study = None,
    storage: _Storage = None,
    json: Json = False,
) -> None:
    """Search plans as `towtank tune` does, run the best ones a few steps each, and rank them by measured time.

    Plans that differ in switches of overlap alone run once. Without --fix precision=... plans are in fp32 on a CPU.
    The regret is how much slower the plan predicted best is than the best of those that ran.
    """
    from towtank.cli.progress import progress_bar
    from towtank.cli.tune import Question, tuning_task
    from towtank.executor import verify as verification
    from towtank.hardware_profiles.load import load_machine

    wish = TrialsWish(trials, sampler, seed, study, storage)
    if wish.is_asked:
        place_of(wish)  # before the search takes its time
    verification.check_machine(load_machine(machine))
    question = Question(
        model, machine, stack, devices, global_batch, sequence, _fixed(fix or [], machine), (), (), (), None, None,
        "simpy", Path("plan.yaml"), True, (), memory_margin,
    )  # fmt: skip
    task = tuning_task(question)
    if wish.is_asked:
        from towtank.autotune.study.plan_objective import References

        references = References(model, machine, stack)
        return run_trials(task, lambda: _best(task, top), references, steps, wish, json=json)
    result = _searched(task, top)
    found = verification.verify(
        task, result, top=top, rounds=rounds, steps=steps,
        progress=lambda done, total: progress_bar("runs", done=done, total=total),
    )  # fmt: skip
    _print(found, as_json=json)


def _searched(task: "TuningTask", top: int) -> "SearchResult":
    from towtank.autotune.search.exact import tune
    from towtank.cli.tune_progress import search_bar
    from towtank.executor.verify import CANDIDATES

    with search_bar() as show:
        return tune(task, top=top * CANDIDATES, progress=show, finalists=0)


def _best(task: "TuningTask", top: int) -> "list[Plan]":
    """The best predicted plans that run here.

    Raises:
        VerifyError: none of them can.
    """
    from towtank.executor.verify import VerifyError, chosen

    plans, left_out = chosen(task, _searched(task, top), top)
    if not plans:
        raise VerifyError("; ".join(["none of the plans can run", *left_out]))
    return [ranked.plan for ranked, _ in plans]


def _fixed(fix: list[str], machine: str) -> list[str]:
    """The constraints, with fp32 where nobody says and the machine has no GPU: CPUs are slow in 16 bits."""
    from towtank.hardware_profiles.load import load_machine

    calibration = load_machine(machine).calibration
    on_cpu = calibration is not None and calibration.hardware.device_type == "cpu"
    said = any(each.partition("=")[0].strip() == "precision" for each in fix)
    return [*fix, "precision=fp32"] if on_cpu and not said else fix


def _print(found: "Verification", *, as_json: bool) -> None:
    from dataclasses import asdict

    from towtank.cli.text import emit, emit_json, table

    if as_json:
        plans = [{**asdict(each), "error": each.error} for each in found.plans]
        emit_json(
            {
                "regret": found.regret,
                "median_error": found.median_error,
                "plans": plans,
                "left_out": list(found.left_out),
            }
        )
        return
    rows = [
        (
            str(each.measured_rank),
            str(each.predicted_rank),
            f"{each.measured_s * 1e3:.1f} ms",
            f"{each.predicted_s * 1e3:.1f} ms",
            f"{each.error:+.1%}",
            _words(each.plan),
        )
        for each in found.plans
    ]
    emit(table(rows, ("rank", "predicted", "step", "predicted step", "error", "plan"), right=(0, 1, 2, 3, 4)))
    emit(
        f"\nregret {found.regret:.1%}: the plan predicted best against the best of these {len(rows)}; "
        f"median error of step times {found.median_error:.1%}"
    )
    for reason in found.left_out:
        emit(f"left out: {reason}")


def _words(plan: Any) -> str:
    """Fields of a plan that are not as they are by default."""
    from dataclasses import fields

    from towtank.simulator.plan import Plan

    usual = Plan()
    names = [each.name for each in fields(Plan) if each.name not in ("overlap", "global_batch", "precision")]
    return " ".join(f"{n}={getattr(plan, n)}" for n in names if getattr(plan, n) != getattr(usual, n))
