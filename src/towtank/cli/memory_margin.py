"""The option `--memory-margin`: room for the error of predicted memory."""

from math import isfinite
from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.failure import InputError

if TYPE_CHECKING:
    from towtank.autotune.task import TuningTask

AUTO = "auto"

MemoryMarginOption = Annotated[
    str,
    typer.Option(
        "--memory-margin",
        metavar="auto|SHARE",
        help="Part of the predicted memory that stays free for its error, such as 0.05 or 5%; auto: by how much "
        "published runs exceed their prediction at the 90th percentile (of the stack, else of all).",
    ),
]


def margin_share(text: str, stack: str | None) -> float:
    """The share that `--memory-margin` asks for, on a stack; of an unknown stack (None) it is only checked.

    Raises:
        InputError: the text is neither `auto` nor a share from 0 to 1.
    """
    if text == AUTO:
        from towtank.validation.memory_margin import memory_margin

        return 0.0 if stack is None else memory_margin(stack).share
    try:
        share = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not isfinite(share) or not 0.0 <= share <= 1.0:
        raise InputError(f"--memory-margin {text}: must be auto, or a share from 0 to 1 such as 0.05 or 5%")
    return share


def does_not_fit_words(share: float) -> str:
    """`do not fit`, with what stays free, where anything does."""
    from towtank.cli.text import percent

    return (
        f"do not fit with {percent(share)} to spare for the error of predicted memory"
        if share
        else "do not fit"
    )


def margin_note(task: "TuningTask", asked: str) -> str | None:
    """Where the room of a search comes from, as a line; None where it keeps none."""
    from towtank.cli.text import percent

    if not task.memory_margin:
        return None
    share = percent(task.memory_margin)
    if asked != AUTO:
        return f"memory: {share} of what is predicted stay free, as asked (--memory-margin)"
    from towtank.validation.memory_margin import memory_margin

    found = memory_margin(task.stack.name)
    return (
        f"memory: {share} of what is predicted stay free; one in ten of {found.rows:,} published runs of {found.of} "
        "needs more than that above its prediction (--memory-margin 0 keeps nothing free)"
    )
