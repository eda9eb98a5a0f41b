"""What `towtank memorize` prints."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from towtank.cli.text import paragraph, percent, table

if TYPE_CHECKING:
    from towtank.executor.memorize import Experiment, Outcome

HEADS = ("seen", "exact", "documents", "exact match", "right tokens")


def loss_name(outcome: "Outcome") -> str:
    """The loss in words."""
    if outcome.goldfish is None:
        return "plain loss"
    return f"goldfish loss, k = {outcome.goldfish.k}, h = {outcome.goldfish.h}"


def text(experiment: "Experiment", outcomes: "list[Outcome]") -> str:
    """A table for each loss."""
    source = "random bytes" if experiment.data is None else str(experiment.data)
    parts = [
        paragraph(
            f"Documents of {experiment.length} bytes from {source}; exact: the greedy continuation of the first "
            f"{experiment.length - experiment.answer} gives the last {experiment.answer}.",
            0,
        )
    ]
    for outcome in outcomes:
        rows = [
            (
                f"{bucket.times} x",
                str(bucket.exact),
                str(bucket.documents),
                percent(bucket.exact / bucket.documents),
                percent(bucket.right_tokens),
            )
            for bucket in outcome.buckets
        ]
        name = loss_name(outcome)
        if outcome.goldfish is not None:
            name += f" ({percent(outcome.dropped)} of the targets left out)"
        parts.append(f"\n{name}\n{table(rows, HEADS, right=range(len(HEADS)))}")
    return "\n".join(parts)


def document(experiment: "Experiment", outcomes: "list[Outcome]") -> dict[str, Any]:
    """The same for programs."""
    asked = asdict(experiment)
    asked["data"] = None if experiment.data is None else str(experiment.data)
    return {"experiment": asked, "outcomes": [asdict(outcome) for outcome in outcomes]}
