"""A configuration as a plan: the one entry into reading."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from towtank.autotune.export.names import names_of
from towtank.autotune.reading import axonn, deepspeed, megatron
from towtank.autotune.reading.arguments import read_arguments
from towtank.autotune.reading.records import Imported, ReadingError
from towtank.hardware_profiles.files import StrictLoader
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import JOB_KEYS
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack

SOURCES = (megatron.SOURCE, axonn.SOURCE, deepspeed.SOURCE)


def import_plan(
    path: Path,
    source: str | None = None,
    *,
    devices: int | None = None,
    model: ModelSpec | None = None,
    stack: Stack | None = None,
    defined: Mapping[str, str] | None = None,
) -> Imported:
    """Read the plan in a file of Megatron-LM, Megatron-AxoNN or DeepSpeed.

    `source` is found from the content where it is None. `defined` are variables of bash that the file uses and does
    not assign.

    Raises:
        ReadingError: every reason why the file is no plan.
    """
    subject = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ReadingError([f"byte {error.start} is not UTF-8; save the file as UTF-8"], subject) from error
    except OSError as error:
        raise ReadingError([f"cannot be read: {error.strerror}"], subject) from error
    try:
        return _read(text, source, devices, model, stack, defined or {}, subject)
    except RecursionError as error:
        raise ReadingError(["nests too deeply to be a configuration"], subject) from error


def _read(
    text: str,
    source: str | None,
    devices: int | None,
    model: ModelSpec | None,
    stack: Stack | None,
    defined: Mapping[str, str],
    subject: str,
) -> Imported:
    if source is None and _is_plan_file(text):
        raise ReadingError(["is a plan file of towtank; use it as it is"], subject)
    chosen = source or detect(text)
    stack = stack or load_stack(names_of(chosen).stack)
    if chosen == deepspeed.SOURCE:
        return deepspeed.read(deepspeed.parse(text, subject), stack, devices, subject)
    known = (*megatron.known_options(), *axonn.MARKS)
    arguments = read_arguments(text, known, defined, subject)
    if chosen == axonn.SOURCE:
        return axonn.read(arguments, stack, devices, model, subject)
    return megatron.read(arguments, stack, devices, model, subject)


def _is_plan_file(text: str) -> bool:
    """Whether a file is a mapping of fields of a plan, with the batch that every plan has."""
    if "global_batch" not in text:
        return False
    try:
        data = yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError:
        return False
    own = {*Plan.__dataclass_fields__, *JOB_KEYS, "schema"}
    return isinstance(data, dict) and "global_batch" in data and set(data) <= own


def detect(text: str) -> str:
    """Software that a file is for: DeepSpeed's JSON has names that nobody else uses."""
    marks = ("train_micro_batch_size_per_gpu", "train_batch_size", "zero_optimization")
    looks = text.lstrip().startswith("{") and any(f'"{mark}"' in text for mark in marks)
    if looks:
        return deepspeed.SOURCE
    with_hyphens = text.replace("_", "-")  # a dump has underscores
    of_axonn = any(mark.removeprefix("--") in with_hyphens for mark in axonn.MARKS)
    return axonn.SOURCE if of_axonn else megatron.SOURCE
