"""Command line of towtank: arguments and printing, nothing else.

What `app` loads imports no more than typer at its top, so that `towtank --help` is instant; commands import what
they need when they run.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments`, those of the process by default; return the exit code.

    0: done, also for a plan that does not fit; 2: something that the user gave is wrong; 130: interrupted; 141: the
    reader of the output has gone; 1: a fault of towtank itself, with its traceback on the standard error stream.
    Commands may have more; their --help names them.
    """
    from towtank.cli.app import app
    from towtank.cli.failure import run

    return run(app, sys.argv[1:] if arguments is None else list(arguments))
