"""Command lines in texts: found, and parsed as `towtank` would parse them, without running anything."""

import re
import shlex
from typing import Any

import typer

from towtank.cli.app import app

_PLACEHOLDERS = {"...", "[--resume]"}


def command_lines(text: str) -> list[str]:
    """Indented lines that call towtank, continued lines joined, remarks after three blanks cut off."""
    joined = re.sub(r" *\\\n *", " ", text)
    found = re.findall(r"^ {2,}(?:[A-Z_]+=\S+ )?(towtank .*)$", joined, re.MULTILINE)
    return [re.split(r" {3,}", line)[0] for line in found]


def fault(line: str) -> str | None:
    """Why towtank would refuse a command line before it looks at what the words mean; None where it would not."""
    words = [word for word in shlex.split(line)[1:] if word not in _PLACEHOLDERS]
    command: Any = typer.main.get_command(app)
    path = ["towtank"]
    while words and words[0] in getattr(command, "commands", {}):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    if path == ["towtank"] and words and not words[0].startswith("-"):
        return f"{line}: no command {words[0]}"
    if not words or "--help" in words:  # the name of a command, or its help
        return None
    try:
        command.make_context(" ".join(path), words)
    except Exception as error:
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        return f"{line}: {message()}"
    return None
