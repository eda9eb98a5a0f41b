"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Profiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--profiles",
        metavar="DIR",
        help="Folder of private profiles (devices/, machines/, networks/), searched before ours. Repeatable.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="M",
        help="Name of a model, or a model YAML or config.json; default: what the plan file names.",
        show_default=False,
    ),
]
Machine = Annotated[
    str | None,
    typer.Option(
        "--machine",
        metavar="X",
        help="Machine such as selene or dgx-h100:nodes=64; default: what the plan file names.",
        show_default=False,
    ),
]
Stack = Annotated[
    str | None,
    typer.Option(
        "--stack",
        metavar="S",
        help="Software that the job runs on; default: what the plan file names, else megatron-core.",
        show_default=False,
    ),
]
