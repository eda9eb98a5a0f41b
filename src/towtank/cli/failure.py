"""What happens when something goes wrong: one clear message for the user, a traceback for us."""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

from towtank.cli.progress import wipe

WRONG_INPUT = 2
INTERNAL = 1
INTERRUPTED = 130

_OF_THE_PLACE = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EISDIR, errno.ENOTDIR,
        errno.ENAMETOOLONG, errno.ELOOP,
    }
)  # fmt: skip
"""What a file system says of a place where somebody wants something written or read; no fault of the code."""

Loaded = TypeVar("Loaded")


class Commands(TyperGroup):
    """The commands, with Ctrl-C passed on as an abort: typer would end them without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            typer.Abort: the user pressed Ctrl-C.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Abort from error


class InputError(ValueError):
    """Something that the user gave is wrong; the message says what and what to do."""


def user_errors() -> tuple[type[Exception], ...]:
    """Errors of the floors below that a user can cause."""
    from towtank.autotune.capacity.errors import CapacityError
    from towtank.autotune.errors import TuningError
    from towtank.executor.errors import ExecutorError
    from towtank.hardware_profiles.errors import ProfileError
    from towtank.kernels.errors import KernelError
    from towtank.simulator.errors import PlanError, StackError
    from towtank.simulator.models.errors import ModelError
    from towtank.simulator.schedules.slots import ScheduleError

    return (
        InputError,
        CapacityError,
        ExecutorError,
        KernelError,
        ProfileError,
        PlanError,
        StackError,
        ModelError,
        ScheduleError,
        TuningError,
    )


class Inputs:
    """Loads several inputs and reports what is wrong with all of them at once."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def take(self, load: Callable[[], Loaded]) -> Loaded | None:
        """Return what `load` returns, or None after noting why it cannot."""
        try:
            return load()
        except user_errors() as error:
            self.faults.append(str(error))
        except OSError as error:
            self.faults.append(describe(error))
        return None

    def check(self) -> None:
        """Raise InputError with every fault so far, if there is one."""
        if len(self.faults) == 1:
            raise InputError(self.faults[0])
        if self.faults:
            lines = (
                "\n".join("    " * (n > 0) + line for n, line in enumerate(f.split("\n")))
                for f in self.faults
            )
            raise InputError(
                "\n".join([f"{len(self.faults)} inputs are wrong", *(f"  - {text}" for text in lines)])
            )


def describe(error: OSError) -> str:
    """Say which file could not be used and why."""
    if error.filename is None:
        return error.strerror or str(error)
    return f"{error.filename}: {error.strerror}"


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run the command line and turn every outcome into an exit code."""
    _prepare_streams()
    try:
        outcome = typer.main.get_command(app).main(
            list(arguments), prog_name="towtank", standalone_mode=False
        )
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else INTERNAL
    except Exception as error:
        return _failed(error)
    return outcome if isinstance(outcome, int) else 0


def _prepare_streams() -> None:
    """Standard streams that any text can be written to, also where the shell has closed one (`>&-`)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the process ends
        elif reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")  # a terminal that lacks a letter must not end a prediction


def _failed(error: Exception) -> int:
    # typer brings its own copy of click since 0.20 or so: no class to catch is the same in all versions
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context is not None else ""
        complain(f"{str(usage()).rstrip('.')}{hint}")
        return WRONG_INPUT
    if isinstance(error, user_errors()):
        complain(str(error))
        return WRONG_INPUT
    if isinstance(error, OSError) and error.errno in _OF_THE_PLACE:
        complain(describe(error))
        return WRONG_INPUT
    wipe()
    traceback.print_exception(error)
    complain(
        "this is a fault of towtank, not of your input; "
        "please report the lines above together with the command and `towtank --version`"
    )
    return INTERNAL


def complain(message: str) -> None:
    """Print a message on the standard error stream, in the place of a bar that is there."""
    wipe()
    print(f"towtank: {message}", file=sys.stderr)
