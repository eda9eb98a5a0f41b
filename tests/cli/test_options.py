"""The commands and their options are an interface: a change here is a change for every script that calls us."""

import re

import pytest
import typer
from tests.cli.commands import command_lines, fault

from towtank.cli.app import app
from towtank.cli.job import DEFAULT_STACK

HELP = ["--help", "-h"]
COMMANDS = {
    "": ["--help", "--version", "-h"],
    "predict": [
        "--variability", "--background", "--breakdown", "--devices", "--engine", "--help", "--ignore-config-key",
        "--json", "--machine", "--model", "--placement", "--plan", "--profiles", "--quantiles", "--seed", "--set",
        "--stack", "--trace", "-h",
    ],
    "tune": [
        "--budget", "--devices", "--finalists", "--finalists-engine", "--fix", "--force", "--free",
        "--global-batch", "--help", "--json", "--machine", "--max", "--method", "--min", "--model", "--output",
        "--profiles", "--sequence", "--stack", "--top", "--workers", "-h", "-o", "--measure", "--or-devices",
        "--price-per-device-hour", "--trials", "--sampler", "--seed", "--study", "--storage", "--worker", "--lease",
        "--slurm", "--slurm-nodes", "--slurm-workers", "--slurm-time", "--slurm-option", "--memory-margin",
    ],
    "why": [
        "--against", "--devices", "--help", "--json", "--machine", "--memory-margin", "--model", "--profiles",
        "--set", "--stack", "--top", "-h", "PLAN.yaml",
    ],
    "compare": [
        "--help", "--json", "--machine", "--model", "--profiles", "--set-a", "--set-b", "--stack", "-h", "A.yaml",
        "B.yaml",
    ],
    "scale": [
        "--budget", "--devices", "--fix", "--free", "--global-batch", "--grow", "--help", "--jobs", "--json",
        "--machine", "--max", "--memory-margin", "--min", "--mode", "--model", "--plot", "--profiles", "--sequence",
        "--stack", "-h",
    ],
    "capacity": [
        "--budget-usd", "--carbon-intensity", "--chance", "--checkpoint", "--checkpoint-interval", "--csv",
        "--deadline", "--detection", "--devices", "--elastic", "--evaluation", "--failures-per-node-day",
        "--global-batch", "--help", "--host-bandwidth", "--html", "--job-limit", "--json", "--machines",
        "--maintenance", "--markdown", "--model", "--power", "--price-per-device-hour", "--profiles", "--pue",
        "--queue", "--ramp", "--range", "--reliability", "--repair", "--restart", "--runs", "--search-budget",
        "--seed", "--sequence", "--spares", "--stack", "--start", "--storage-bandwidth", "--storage-files",
        "--stragglers", "--tokens", "-h",
    ],
    "explain": [
        "--help", "--json", "--machine", "--model", "--profiles", "--set", "--stack", "--top", "-h", "PLAN.yaml",
    ],
    "export": [
        "--framework", "--help", "--ignore-config-key", "--json", "--machine", "--model", "--output", "--profiles",
        "--set", "--stack", "--to", "-h", "-o", "PLAN",
    ],
    "import": [
        "--define", "--devices", "--from", "--help", "--json", "--machine", "--model", "--output", "--set",
        "--stack", "-h", "-o", "FILE",
    ],
    "report": [
        "--csv", "--help", "--html", "--machine", "--markdown", "--model", "--profiles", "--stack", "-h",
        "PLAN.yaml",
    ],
    "ui": ["--help", "--no-browser", "--port", "-h"],
    "demo": ["--help", "--json", "-h"],
    "validate": ["--help", "--html", "--jobs", "--json", "--runs", "--where", "-h"],
    "memorize": [
        "--answer", "--data", "--documents", "--goldfish", "--goldfish-context", "--help", "--hidden", "--json",
        "--layers", "--learning-rate", "--length", "--plot", "--seed", "--times", "--unrelated", "--warm-up", "-h",
    ],
    "network": [
        "--background", "--bytes", "--collective", "--detours", "--group", "--help", "--islands", "--json",
        "--library", "--machine", "--map", "--matrix", "--nodes", "--placement", "--plot", "--profiles", "--seed",
        "--sweep", "--taper", "-h",
    ],
    "network import": [
        "--calibrate", "--collective", "--help", "--in-place", "--json", "--library", "--machine", "--nodes",
        "--placement", "--plot", "--profiles", "--seed", "--taper", "-h", "FILE",
    ],
    "kernels": ["--help", "-h"],
    "kernels bench": ["--backend", "--device", "--help", "--out", "--quick", "-h"],
    "kernels list": ["--device", "--help", "--json", "-h"],
    "kernels profile": ["--device", "--help", "--out", "-h", "FILE"],
    "kernels tune": [
        "--backend", "--budget", "--device", "--dtype", "--fresh", "--help", "--json", "--kernel", "--out",
        "--profile", "--shape", "--trials", "-h",
    ],
    "kernels validate": [
        "--all-tiles", "--backend", "--device", "--dtype", "--help", "--jobs", "--json", "--kernel", "--seed", "-h",
    ],
    "machines": ["--help", "--json", "--profiles", "-h"],
    "machines show": ["--help", "--json", "--profiles", "-h", "NAME"],
    "devices": ["--help", "--json", "--profiles", "-h"],
    "devices show": ["--help", "--json", "--profiles", "-h", "NAME"],
    "models": ["--help", "--json", "-h"],
    "models show": ["--help", "--json", "-h", "NAME"],
    "stacks": ["--help", "--json", "-h"],
    "stacks show": ["--help", "--json", "-h", "NAME"],
    "run": [
        "--checkpoint", "--data", "--device", "--dropout", "--dtype", "--goldfish", "--goldfish-context",
        "--gradient-clip", "--help", "--json", "--learning-rate", "--machine", "--model", "--profiles", "--record",
        "--resume", "--save-every", "--seed", "--set", "--stack", "--steps", "--threads", "--trace", "--warm-up",
        "--weight-decay", "-h", "PLAN.yaml",
    ],
    "diff": [
        "--each-layer", "--help", "--json", "--machine", "--model", "--profiles", "--record", "--set", "--stack",
        "--top", "-h", "PLAN.yaml",
    ],
    "calibrate": [
        "--from", "--full", "--help", "--json", "--out", "--processes", "--quick", "-h", "RECORD",
    ],
    "verify": [
        "--devices", "--fix", "--global-batch", "--help", "--json", "--machine", "--memory-margin", "--model",
        "--rounds", "--sampler", "--seed", "--sequence", "--stack", "--steps", "--storage", "--study", "--top",
        "--trials", "-h",
    ],
    "kernels compare": ["--backend", "--device", "--dtype", "--help", "--json", "--kernel", "--shape", "-h"],
}  # fmt: skip
DEFAULTS = {"engine": "compiled", "placement": "contiguous"}
"""Of predict; the stack is megatron-core where neither option nor plan file names one."""


def _collect(command, path=""):
    context_settings = {"help_option_names": HELP}
    context = command.context_class(command, info_name=path or "towtank", **context_settings)
    names = [
        name
        for parameter in command.get_params(context)
        for name in (parameter.opts if parameter.param_type_name == "option" else [parameter.metavar])
    ]
    found = {path: sorted(names)}
    for name, below in getattr(command, "commands", {}).items():
        found |= _collect(below, f"{path} {name}".strip())
    return found


def test_commands_and_options() -> None:
    assert _collect(typer.main.get_command(app)) == {path: sorted(names) for path, names in COMMANDS.items()}


def test_defaults() -> None:
    predict = typer.main.get_command(app).commands["predict"]
    stated = {
        parameter.name: parameter.default
        for parameter in predict.params
        if isinstance(parameter.default, str)
    }
    assert stated == DEFAULTS
    assert DEFAULT_STACK == "megatron-core"  # where neither option nor plan file names one


def test_version(towtank) -> None:
    from towtank import __version__

    assert towtank("--version").out == f"towtank {__version__}\n"


def test_help_without_arguments_and_of_each_command(towtank) -> None:
    for path, names in COMMANDS.items():
        outcome = towtank(*path.split(), "--help")
        assert outcome.code == 0, path
        for name in names:
            assert name in outcome.out, (path, name)
    assert towtank().out == towtank("--help").out


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in ("", "kernels")])
def test_help_of_each_command_has_examples_that_parse(towtank, path: str) -> None:
    lines = command_lines(towtank(*path.split(), "--help").out)
    assert any(re.match(rf"towtank {path}( |$)", line) for line in lines), lines
    assert [found for line in lines if (found := fault(line))] == []


def test_wrong_command_lines_are_found_out() -> None:
    text = (
        "  towtank predict --modle x   (a remark)\n"
        "  towtank tune --top \\\n      0\n"
        "towtank in a sentence\n"
        "  towtank predcit\n"
    )
    lines = command_lines(text)
    assert lines == ["towtank predict --modle x", "towtank tune --top 0", "towtank predcit"]
    assert all(fault(line) for line in lines)
    assert fault("towtank run plan.yaml --steps 1000 [--resume]") is None


def test_predict_help_has_examples_that_stay_on_their_lines(towtank) -> None:
    help_text = towtank("predict", "--help").out
    assert "  towtank predict --model megatron-1t --machine selene --stack megatron-2021 \\\n" in help_text


@pytest.mark.parametrize("command", ["", "kernels", "machines", "devices", "models", "stacks", "network"])
def test_every_command_is_listed_with_a_whole_sentence(towtank, command) -> None:
    out = towtank(*command.split(), "--help").out
    listed = out[out.index("\nCommands:\n") :].split("\n\n")[0].splitlines()[2:]
    assert listed
    assert [line for line in listed if not re.fullmatch(r"  [a-z]+ +[A-Z].*[a-z\d']\.", line)] == []
