"""Arguments of a program: from a launch script, a list of arguments, a dump as JSON or YAML, or the head of a log."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from towtank.autotune.export.environment import TF32
from towtank.autotune.reading.records import ReadingError
from towtank.autotune.reading.shell import Script, read_script
from towtank.hardware_profiles.files import StrictLoader

_LOGGED = re.compile(r"^\s*(?:\S*\s)?\s*([a-z_0-9]+) \.{2,} (.*?)\s*$", re.MULTILINE)
"""A line like `  hidden_size ..................... 12288` of the list that Megatron-LM prints."""
_NUMBER = re.compile(r"-[0-9.]")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a file says to a program."""

    options: Mapping[str, object]
    """Value by option (`--name`), or by destination (`name`) from a dump; True for a switch."""
    devices: int | None
    """Processes that the launch line starts; None where the file does not say."""
    dumped: bool
    """Whether the options are a dump of all arguments, the defaults among them."""
    tf32: bool = False
    """Whether the script sets PyTorch's switch that makes fp32 multiplies TF32."""


def read_arguments(text: str, known: Sequence[str], defined: Mapping[str, str], subject: str) -> Arguments:
    """Read a file; `known` are options that tell the right command among several, `defined` variables of bash.

    Raises:
        ReadingError: there is no option in it, or it starts like JSON and is none.
    """
    dump = _dump(text)
    if dump is None and text.lstrip().startswith("{"):
        raise ReadingError([_not_json(text)], subject)
    if dump is not None:
        world = dump.pop("world_size", None)
        return Arguments(dump, world if isinstance(world, int) and world > 0 else None, True)
    script = read_script(text, defined)
    command = _command(script, known)
    if command is None:
        raise ReadingError(
            [
                "holds no option such as --tensor-model-parallel-size; give a launch script, a list of arguments, "
                "or a dump of them as JSON, YAML or log"
            ],
            subject,
        )
    first = _first_option(command)
    return Arguments(
        _options(command[first:]),
        _processes(command[:first], script, text),
        dumped=False,
        tf32=script.variables.get(TF32) == ["1"],
    )


def _dump(text: str) -> dict[str, Any] | None:
    """Arguments by destination from JSON, YAML or the list in a log; None for a script."""
    logged = {name: _typed(value) for name, value in _LOGGED.findall(text)}
    if len(logged) > 1:
        return logged
    stripped = text.lstrip()
    try:
        data = json.loads(text) if stripped.startswith("{") else yaml.load(text, Loader=StrictLoader)
    except (ValueError, yaml.YAMLError):
        return None
    return (
        _flat(data) if isinstance(data, dict) and not any(str(key).startswith("-") for key in data) else None
    )


def _not_json(text: str) -> str:
    try:
        json.loads(text)
    except ValueError as error:
        return f"starts like JSON and is not JSON: {error}"
    return "is JSON, but its keys are options; give a dump of the arguments, or a list of them as text"


def _flat(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Entries of sections such as `model_parallel:` beside those of the top."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value)
        else:
            flat[str(key).removeprefix("--").replace("-", "_")] = value
    return flat


def _typed(text: str) -> object:
    words = {"None": None, "True": True, "False": False}
    if text in words:
        return words[text]
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    listed = re.fullmatch(r"\[(.*)\]", text)
    return [part.strip(" '\"") for part in listed[1].split(",") if part.strip()] if listed else text


def _command(script: Script, known: Sequence[str]) -> list[str] | None:
    """The command, or else the array or variable, with most of the known options."""
    held = [[part for value in values for part in value.split()] for values in script.variables.values()]
    commands: list[list[str]] = []
    for words in script.commands:  # a line that starts with an option goes on with the line before
        if commands and words[0].startswith("-"):
            commands[-1] += words
        else:
            commands.append(list(words))
    best, most = None, 0
    for words in [*commands, *held]:
        names = {word.partition("=")[0] for word in words}
        found = len(names & set(known)) * 1000 + sum(word.startswith("--") for word in words)
        if found > most:
            best, most = words, found
    return best


def _first_option(words: Sequence[str]) -> int:
    """Where arguments of the program start: after its name, else at the first option."""
    programs = [index for index, word in enumerate(words) if word.endswith(".py")]
    if programs:
        return programs[-1] + 1
    return next((index for index, word in enumerate(words) if word.startswith("--")), 0)


def _options(words: Sequence[str]) -> dict[str, object]:
    """Values by option; the last of several counts, as for argparse."""
    options: dict[str, object] = {}
    name = None
    for word in words:
        if word.startswith("-") and not _NUMBER.match(word):
            name, sign, value = word.partition("=")
            options[name] = value if sign else True
        elif name is not None:
            old = options[name]
            options[name] = (
                word if old is True else [*old, word] if isinstance(old, list) else [str(old), word]
            )
    return options


def _processes(launcher: Sequence[str], script: Script, text: str) -> int | None:
    """Processes from the options of torchrun, srun or deepspeed, from sbatch lines, or from WORLD_SIZE."""
    given = _options(launcher)
    for line in re.findall(r"^#SBATCH\s+(\S+.*)$", text, re.MULTILINE):
        words = line.split()
        for name, value in _options(words).items():
            given.setdefault(name, value)

    def whole(*names: str) -> int | None:
        for name in names:
            found = given.get(name, "")
            value = str(found[0] if isinstance(found, list) else found)  # a program may follow the number
            if value.isdecimal() and int(value) > 0:
                return int(value)
        return None

    tasks = whole("--ntasks", "-n", "--num_processes", "--num-processes")  # the last two are accelerate's
    nodes = whole("--nnodes", "--nodes", "-N", "--num_nodes")
    each = whole(
        "--nproc-per-node",
        "--nproc_per_node",
        "--ntasks-per-node",
        "--gpus-per-node",
        "--num_gpus",
    )
    torchrun = whole("--nproc-per-node", "--nproc_per_node")
    if torchrun is None and tasks is not None:
        return tasks
    if each is not None and (nodes is not None or torchrun is None or "--nnodes" not in given):
        return each * (nodes or 1) if nodes is not None or torchrun is not None else None
    world = script.variables.get("WORLD_SIZE", [""])[0]
    return int(world) if world.isdecimal() and int(world) > 0 else None
