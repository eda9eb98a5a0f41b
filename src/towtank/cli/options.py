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
