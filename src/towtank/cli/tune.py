"""`towtank tune`: the best plan for a model on a machine, proven within the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from towtank.cli.failure import INTERRUPTED, WRONG_INPUT, InputError, Inputs, complain
from towtank.cli.files import check_writable, fault_of_writing
from towtank.cli.memory_margin import AUTO, MemoryMarginOption, margin_share
from towtank.cli.options import Json, Profiles
from towtank.cli.records_as_options import with_records
from towtank.cli.tune_study import located, run_asked
from towtank.cli.tune_study_options import NO_WISH, StudyWish
from towtank.cli.tune_unread import unread
from towtank.cli.tune_worker import KEPT, run_worker
from towtank.cli.words import one_of

if TYPE_CHECKING:
    from towtank.autotune.search.report import SearchReport
    from towtank.autotune.task import TuningTask
    from towtank.simulator.plan import Plan
    from towtank.simulator.predict import EngineName

EXAMPLES = """\
\b
Examples:
  towtank tune --model megatron-1t --machine selene --devices 3072 --global-batch 3072
  towtank tune --model llama3-70b --machine dgx-h100:nodes=64 --global-batch 1024 --stack megatron-core \\
      --fix 'tensor_x=4|8' --max pipeline=16 -o llama.yaml
  towtank tune --model llama-3.1-405b --machine grand-teton:nodes=1024 --devices 8192 --global-batch 2048 \\
      --sequence 8192 --budget 60s
  towtank tune --model my/config.json --machine jupiter --devices 512 --global-batch 512 --json
  towtank tune --model llama3-8b --machine dgx-h100:nodes=4 --global-batch 64 --stack megatron-core \\
      --method optuna --trials 300 --study llama
  towtank tune --model llama3-8b --machine aws-p5-h100:nodes=4 --global-batch 64 --measure throughput --measure cost
  towtank tune --model gpt-20b --machine perlmutter --devices 32 --global-batch 1024 --stack axonn --method axonn
  towtank tune --worker --study llama --storage /scratch/llama.journal

\b
Dimensions for --fix, --min, --max and --free are fields of the plan (towtank.Plan), or overlap. and a switch.
Exit codes: 0 a plan was found, 2 wrong input or no plan fits, 130 stopped by Ctrl-C with what was done.
"""

ANY_STACK = "any"
_ENGINES = ("simpy", "flows")


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


_Model = Annotated[str | None, _option("--model", "M", "Name of a model, or a model YAML or config.json.")]
_Machine = Annotated[str | None, _option("--machine", "X", "Machine such as selene or dgx-h100:nodes=64.")]
_Devices = Annotated[
    int | None, _option("--devices", "N", "Devices that every plan occupies; default: all of the machine.")
]
_Batch = Annotated[int | None, _option("--global-batch", "N", "Sequences of one step.")]
_Sequence = Annotated[int | None, _option("--sequence", "N", "Tokens of one sequence; default: the model's.")]
_Stack = Annotated[
    str,
    typer.Option(
        "--stack",
        metavar="S",
        help="Software that limits the space; any: every dimension that some stack has.",
    ),
]
_Fix = Annotated[
    list[str] | None,
    _option("--fix", "FIELD=VALUE", "Only these values, such as tensor_x=8 or tensor_x=4|8. Repeatable."),
]
_Min = Annotated[list[str] | None, _option("--min", "FIELD=N", "Smallest value of a count. Repeatable.")]
_Max = Annotated[list[str] | None, _option("--max", "FIELD=N", "Largest value of a count. Repeatable.")]
_Free = Annotated[
    list[str] | None,
    _option("--free", "FIELD", "All legal values instead of the usual ones; or all. Repeatable."),
]
_Top = Annotated[int, typer.Option("--top", metavar="N", min=1, help="Plans in the answer, all proven.")]
_Budget = Annotated[
    str | None,
    _option(
        "--budget",
        "TIME",
        "Stop after about so long, such as 60s, and say how far the answer can be behind. A first answer for a large "
        "space takes some seconds whatever the budget.",
    ),
]
_Workers = Annotated[int | None, _option("--workers", "N", "Processes that simulate; default: one a core.")]
_Finalists = Annotated[
    int,
    typer.Option("--finalists", metavar="N", min=0, help="Best plans that the reference engine runs too."),
]
_FinalistsEngine = Annotated[
    str,
    typer.Option(
        "--finalists-engine", metavar="simpy|flows", help="That engine; flows: collectives share the network."
    ),
]
_Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where the best plan goes. A plan file that is there is replaced, another file only with --force.",
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Replace the output file whatever it is.")]


@dataclass(frozen=True)
class Question:
    """What the user asks for, as given."""

    model: str
    machine: str
    stack: str
    devices: int | None
    global_batch: int
    sequence: int | None
    fix: Sequence[str]
    least: Sequence[str]
    most: Sequence[str]
    free: Sequence[str]
    budget: str | None
    workers: int | None
    engine: str
    output: Path
    force: bool
    profiles: tuple[Path, ...]
    memory_margin: str


@with_records
def tune(
    context: typer.Context,
    model: _Model = None,
    machine: _Machine = None,
    global_batch: _Batch = None,
    devices: _Devices = None,
    sequence: _Sequence = None,
    stack: _Stack = ANY_STACK,
    fix: _Fix = None,
    least: _Min = None,
    most: _Max = None,
    free: _Free = None,
    top: _Top = 10,
    budget: _Budget = None,
    workers: _Workers = None,
    finalists: _Finalists = 3,
    finalists_engine: _FinalistsEngine = "simpy",
    memory_margin: MemoryMarginOption = AUTO,
    output: _Output = Path("plan.yaml"),
    force: _Force = False,
    json: Json = False,
    profiles: Profiles = None,
    study: StudyWish = NO_WISH,
) -> None:
    """Search all legal plans of a model on a machine and write the best one to plan.yaml.

    Every legal plan is judged by memory and a lower bound of its step time; what the bounds leave is simulated, so
    the answer is proven best under the compiled engine. Every plan in it fits. Ctrl-C keeps what is done.
    """
    folders = tuple(profiles or ())
    if lost := unread(context, study):
        raise InputError(lost)
    if study.worker:
        return run_worker(study, folders, json)
    if model is None or machine is None or global_batch is None:
        raise InputError(_missing(model=model, machine=machine, global_batch=global_batch))
    question = Question(
        model, machine, stack, devices, global_batch, sequence, fix or (), least or (), most or (), free or (),
        budget, workers, finalists_engine, output, force, folders, memory_margin,
    )  # fmt: skip
    task, budget_s = _task(question)
    if study.method == "axonn":
        _by_axonn(task, top, question, json)
    elif study.is_asked:
        _study(task, question, study, json, budget_s)
    else:
        _search(task, question, top, finalists, json, budget_s)


def _search(
    task: "TuningTask", question: Question, top: int, finalists: int, json: bool, budget_s: float | None
) -> None:
    """The exact search for the shortest step."""
    report = _searched(task, top, budget_s, question, finalists)
    plans = report.result.plans
    fault = _unwritten(plans[0].plan, question) if plans else None
    _print(report, question, json, written=bool(plans) and fault is None)
    if fault is not None:
        raise fault
    if report.result.stopped == "interrupt":
        complain("interrupted; the answer is the best of what was done")
        raise typer.Exit(INTERRUPTED)
    if not plans:
        raise typer.Exit(WRONG_INPUT)


def _missing(**given: object) -> str:
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
    return f"{', '.join(names)} must be given (only --worker needs none: it reads the study)"


def _study(
    task: "TuningTask", question: Question, study: StudyWish, json: bool, budget_s: float | None
) -> None:
    """What else than the exact search for the shortest step is asked; its best plan goes to the same file."""
    from towtank.autotune.study.plan_objective import References

    references = References(*map(located, (question.model, question.machine, question.stack)))
    answer = run_asked(task, references, study, json=json, budget_s=budget_s, workers=question.workers)
    if answer is None:  # a script was written
        return
    if answer.plan is not None and (fault := _unwritten(answer.plan, question)):
        raise fault
    if answer.interrupted:
        complain(KEPT if study.method != "exact" else "interrupted; the answer is the best of what was done")
        raise typer.Exit(INTERRUPTED)
    if answer.plan is None:
        raise typer.Exit(WRONG_INPUT)


def _task(question: Question) -> "tuple[TuningTask, float | None]":
    """Load everything, so that all faults are told at once."""
    from towtank.autotune.space.constraint_text import read_constraints
    from towtank.autotune.task import TuningTask
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.models.load import load_model
    from towtank.simulator.stacks.load import load_stack

    inputs = Inputs()
    model = inputs.take(lambda: load_model(question.model))
    machine = inputs.take(lambda: load_machine(question.machine, question.profiles))
    stack = inputs.take(lambda: load_stack(question.stack))
    constraints = inputs.take(
        lambda: read_constraints(question.fix, question.least, question.most, question.free)
    )
    budget_s = inputs.take(lambda: budget_seconds(question.budget))
    margin = inputs.take(lambda: margin_share(question.memory_margin, None if stack is None else stack.name))
    inputs.take(lambda: one_of("--finalists-engine", question.engine, _ENGINES))
    inputs.take(lambda: _check_workers(question.workers))
    inputs.take(lambda: _check_output(question.output, question.force))
    devices = question.devices
    if machine is not None and devices is None:
        devices = inputs.take(lambda: _all_devices(machine.name, machine.num_devices))
    task = None
    if model and machine and stack and devices is not None and constraints is not None:
        task = TuningTask(
            model,
            machine,
            stack,
            devices,
            question.global_batch,
            question.sequence,
            constraints,
            question.profiles,
            margin or 0.0,
        )
    inputs.take(lambda: _check_numbers(question) if task is None else _check_task(task))
    inputs.check()
    assert task is not None  # else check has raised
    return task, budget_s


def tuning_task(question: Question) -> "TuningTask":
    """The task of a question; all faults are told at once.

    Raises:
        InputError: something that the question names is wrong.
    """
    return _task(question)[0]


def _check_task(task: "TuningTask") -> None:
    from towtank.autotune.errors import TuningError
    from towtank.autotune.space.legality import task_faults

    if faults := task_faults(task):
        raise TuningError(faults)


def _check_numbers(question: Question) -> None:
    """What can be said of a job that cannot be loaded: its counts are counts."""
    given = {
        "devices": question.devices,
        "global-batch": question.global_batch,
        "sequence": question.sequence,
    }
    wrong = [f"--{name} {number}" for name, number in given.items() if number is not None and number < 1]
    if wrong:
        raise InputError(f"{', '.join(wrong)}: must be 1 or more")


def _all_devices(machine: str, number: int | None) -> int:
    if number is None:
        raise InputError(f"{machine} has no number of nodes; give --devices N, or {machine}:nodes=N")
    return number


def budget_seconds(text: str | None) -> float | None:
    """Seconds of a time such as `60s`; None for none.

    Raises:
        InputError: the text is no time above 0.
    """
    from towtank.hardware_profiles.units import parse_quantity

    if text is None:
        return None
    try:
        seconds = parse_quantity(text, "seconds")
    except ValueError as error:
        raise InputError(f"--budget {text}: must be a time with its unit, such as 60s") from error
    if not 0 < seconds < float("inf"):
        raise InputError(f"--budget {text}: must be above 0, such as 60s")
    return seconds


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be 1 or more")


def _check_output(path: Path, force: bool) -> None:
    """Before the search takes its time: whether its answer can be written."""
    from towtank.simulator.errors import PlanError
    from towtank.simulator.plan_file import plan_file_from_mapping, read_plan_mapping

    check_writable("--output", path)
    if not path.exists() or force:
        return
    try:
        plan_file_from_mapping(read_plan_mapping(path))
    except PlanError as error:
        raise InputError(
            f"--output {path}: is there and is no plan file; name another file with -o, or replace it with --force"
        ) from error


def _searched(
    task: "TuningTask", top: int, budget_s: float | None, question: Question, finalists: int
) -> "SearchReport":
    from towtank.autotune.search.exact import tune as search
    from towtank.autotune.search.report import search_report
    from towtank.cli.tune_progress import search_bar

    try:
        with search_bar() as show:
            result = search(
                task,
                top=top,
                budget_s=budget_s,
                workers=question.workers,
                progress=show,
                finalists=finalists,
                finalists_engine=cast("EngineName", question.engine),
            )
    except KeyboardInterrupt as error:  # later on the search keeps what it has
        complain("interrupted before the first plan was found; nothing is written")
        raise typer.Exit(INTERRUPTED) from error
    return search_report(result)


def _by_axonn(task: "TuningTask", top: int, question: Question, json: bool) -> None:
    """AxoNN's own method: its ranking of grids, and the fastest of the first ones as the plan."""
    from towtank.autotune.axonn_method import axonn_ranking
    from towtank.cli.axonn_text import axonn_answer
    from towtank.cli.progress import progress_bar

    ranking = axonn_ranking(task, top, lambda done, total: progress_bar("grids", done=done, total=total))
    chosen = min(ranking.rows, key=lambda row: row.step_time_s)
    plan = None if chosen.prediction is None else chosen.prediction.plan
    fault = None if plan is None else _unwritten(plan, question)
    axonn_answer(ranking, None if plan is None or fault else question.output, json)
    if fault is not None:
        raise fault


def _unwritten(plan: "Plan", question: Question) -> InputError | None:
    """Write a plan as a plan file that names its job; what is wrong where that fails."""
    from towtank.simulator.plan_file import dump_plan

    text = dump_plan(plan, model=question.model, machine=question.machine, stack=question.stack)
    return fault_of_writing("--output", question.output, text)


def _print(report: "SearchReport", question: Question, json: bool, *, written: bool) -> None:
    if json:
        from towtank import __version__
        from towtank.autotune.search.report import report_to_mapping
        from towtank.cli.text import emit_json

        document = report_to_mapping(report, __version__)
        emit_json(document | ({"output": str(question.output)} if written else {}))
        return
    from towtank.cli.memory_margin import margin_note
    from towtank.cli.text import emit
    from towtank.cli.tune_text import nothing_fits_text, search_text

    if not report.result.plans:
        complain(nothing_fits_text(report))
        return
    emit(
        search_text(
            report,
            _commands(question),
            question.engine,
            margin_note(report.result.task, question.memory_margin),
        )
    )


def _commands(question: Question) -> list[str]:
    """What to type next."""
    from shlex import join

    folders = [word for folder in question.profiles for word in ("--profiles", str(folder))]
    path = str(question.output)
    return [join(["towtank", "predict", "--plan", path, *folders]), join(["towtank", "why", path, *folders])]
