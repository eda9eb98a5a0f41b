"""What a form asks for: its fields, checked, and the job or the task that they name. All faults are told at once."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from towtank.autotune.errors import TuningError
from towtank.autotune.space.legality import task_faults
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.errors import ProfileError
from towtank.hardware_profiles.load import load_machine
from towtank.hardware_profiles.records import Machine
from towtank.simulator.errors import PlanError, StackError
from towtank.simulator.models.errors import ModelError
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import parse_settings, plan_from_mapping
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.schedules.slots import ScheduleError
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack
from towtank.validation.memory_margin import memory_margin

USUAL_STACK = "megatron-core"
TEXTS = {"model": 200, "machine": 200, "stack": 200, "plan": 2000, "tokens": 40, "deadline": 40}
"""Fields of text, with the most letters that each may have."""
COUNTS = {"devices": 10**7, "global_batch": 10**7, "sequence": 10**8}
"""Fields that are counts, with the most that each may be."""
USER_ERRORS = (PlanError, StackError, ModelError, ProfileError, TuningError, ScheduleError, OSError)
_FILE_ENDINGS = (".yaml", ".yml", ".json")
Loaded = TypeVar("Loaded")


class WrongForm(ValueError):  # noqa: N818 - says what is the matter
    """What is wrong with a form: all of it."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(faults))


@dataclass(frozen=True, slots=True)
class Wish:
    """The fields of a form; None and empty text: not filled in."""

    model: str
    machine: str
    stack: str = USUAL_STACK
    plan: str = ""
    """Settings such as `tensor_x=8,pipeline=4`."""
    tokens: str = ""
    """Of a whole run, such as 15.6T; only a capacity plan looks at it and at the deadline."""
    deadline: str = ""
    """Such as 90d."""
    devices: int | None = None
    global_batch: int | None = None
    """Sequences."""
    sequence: int | None = None
    """Tokens."""
    faults: tuple[str, ...] = ()
    """What is wrong with the fields themselves; such a field counts as not filled in."""

    def fields(self) -> dict[str, str]:
        """The fields that are filled in, as text."""
        names = (*TEXTS, *COUNTS)
        return {name: str(getattr(self, name)) for name in names if getattr(self, name) not in (None, "")}


def wish_of(fields: Any) -> Wish:
    """Read the fields of a form; what is wrong with one is told with what is wrong with the records that it names.

    Raises:
        WrongForm: it is no mapping.
    """
    if not isinstance(fields, Mapping):
        raise WrongForm(["a form is a mapping of fields to values"])
    known = (*TEXTS, *COUNTS)
    faults = [
        f"there is no field {str(name)[:40]!r}; there are {', '.join(known)}"
        for name in fields
        if name not in known
    ]
    values: dict[str, Any] = {}
    for name, most in TEXTS.items():
        text = fields.get(name) or ""
        wrong = _text_faults(name, text, most)
        values[name] = "" if wrong else text.strip()
        faults += wrong
    for name, most in COUNTS.items():
        values[name] = _count(name, fields.get(name), most, faults)
    values["stack"] = values["stack"] or USUAL_STACK
    faults += [f"{name} must be filled in" for name in ("model", "machine") if not fields.get(name)]
    return Wish(**values, faults=tuple(faults))


def _text_faults(name: str, text: object, most: int) -> list[str]:
    if not isinstance(text, str):
        return [f"{name} must be text"]
    if len(text) > most:
        return [f"{name} has {len(text):,} letters; {most:,} is the most"]
    if not text.isprintable():
        return [f"{name} holds letters that cannot be printed"]
    if name == "plan" and set(text) & set("&*!"):
        return [
            "plan holds one of & * !, which no setting needs; write settings such as tensor_x=8,pipeline=4"
        ]
    return []


def _count(name: str, value: Any, most: int, faults: list[str]) -> int | None:
    text = "" if value is None else str(value).strip()[:40]
    if not text:
        return None
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= most or isinstance(value, bool):
        faults.append(f"{name} = {text!r} must be a whole number from 1 to {most:,}")
        return None
    return number


def inside(name: str, reference: str, folder: Path) -> str:
    """A reference that names no file outside of `folder`: as it is, or the path of a file in the folder.

    Raises:
        WrongForm: it does.
    """
    if (
        not set(reference) & set("/\\")
        and not reference.endswith(_FILE_ENDINGS)
        and reference not in (".", "..")
    ):
        return reference
    if name == "machine":
        raise WrongForm([f"machine {reference!r} is no name; choose one of the list"])
    path = Path(os.path.realpath(folder / reference))
    if path.is_dir():  # of a model: what is read is the file in it, which may be a link
        path = Path(os.path.realpath(path / "config.json"))
    if not path.is_relative_to(folder.resolve()):
        raise WrongForm([f"{name} {reference!r} lies outside of the folder that the page was started in"])
    return str(path)


@dataclass(frozen=True, slots=True)
class Loads:
    """The records that a form names."""

    model: ModelSpec
    machine: Machine
    stack: Stack
    plan: Plan


def _take(faults: list[str], load: Callable[[], Loaded]) -> Loaded | None:
    try:
        return load()
    except WrongForm as error:
        faults += error.faults
    except (PlanError, TuningError) as error:
        faults += error.faults
    except USER_ERRORS as error:
        faults.append(str(error))
    return None


def loads_of(wish: Wish, folder: Path) -> Loads:
    """Load what a form names; files only out of `folder`.

    Raises:
        WrongForm: everything that is wrong.
    """
    faults = list(wish.faults)
    model = machine = None
    if wish.model:
        model = _take(faults, lambda: load_model(inside("model", wish.model, folder)))
    if wish.machine:
        machine = _take(faults, lambda: load_machine(inside("machine", wish.machine, folder)))
    stack = _take(faults, lambda: load_stack(inside("stack", wish.stack, folder)))
    plan = _take(faults, lambda: _plan(wish))
    if faults or model is None or machine is None or stack is None or plan is None:
        raise WrongForm(faults)
    return Loads(model, machine, stack, plan)


def _plan(wish: Wish) -> Plan:
    """The plan of the settings; batch, sequence and the data-parallel degree from their fields where it has none."""
    settings = parse_settings(wish.plan)
    faults = []
    for name in ("global_batch", "sequence"):
        asked = getattr(wish, name)
        if asked is not None and settings.setdefault(name, asked) != asked:
            faults.append(f"{name} is {asked} in its field and {settings[name]} in the plan; leave one out")
    plan = plan_from_mapping(settings, "plan")
    if faults:
        raise WrongForm(faults)
    if wish.devices is None:
        return plan
    if "data" not in settings and wish.devices % plan.num_devices == 0:
        return plan_from_mapping({**settings, "data": wish.devices // plan.num_devices}, "plan")
    if plan.num_devices != wish.devices:
        raise WrongForm([f"the degrees of the plan make {plan.num_devices:,} devices, which is not {wish.devices:,}"
                         " and does not divide it; change the degrees, or leave one of the two out"])  # fmt: skip
    return plan


def predicted(wish: Wish, folder: Path) -> Prediction:
    """Predict the step that a form asks for.

    Raises:
        WrongForm: everything that is wrong.
    """
    found, faults = loads_of(wish, folder), list[str]()
    if broken := faults_of(found.model, found.machine, found.plan, found.stack):
        raise WrongForm(broken)
    prediction = _take(faults, lambda: predict(found.model, found.machine, found.plan, stack=found.stack))
    if prediction is None:
        raise WrongForm(faults)
    return prediction


def task_of(wish: Wish, folder: Path) -> TuningTask:
    """The search that a form asks for, as `towtank tune` would make it; the settings of a plan do not count.

    Raises:
        WrongForm: everything that is wrong.
    """
    found = loads_of(replace(wish, plan="", devices=None), folder)
    devices = wish.devices if wish.devices is not None else found.machine.num_devices
    faults = [] if wish.global_batch else ["global_batch must be filled in: a search needs the batch"]
    if devices is None:
        faults.append(f"devices must be filled in: {found.machine.name} has no number of nodes")
    if faults or devices is None or wish.global_batch is None:
        raise WrongForm(faults)
    task = TuningTask(
        found.model, found.machine, found.stack, devices, wish.global_batch, wish.sequence,
        memory_margin=memory_margin(found.stack.name).share,
    )  # fmt: skip
    if faults := task_faults(task):
        raise WrongForm(faults)
    return task
