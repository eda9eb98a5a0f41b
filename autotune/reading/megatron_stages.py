"""Which layers each pipeline chunk has, from Megatron-LM's several options for it."""

import re
from dataclasses import dataclass

from towtank.autotune.export.names import names_of
from towtank.autotune.reading.records import Options
from towtank.simulator.lowering.stages import layer_counts
from towtank.simulator.models.records import ModelSpec

_NAMES = names_of("megatron")
_LONGEST = 100_000
"""Letters of a layout; no model comes near."""
_REPEATED = re.compile(r"(\([^()]*\)|[A-Za-z|])\*(\d+)")


@dataclass(frozen=True, slots=True)
class Stages:
    """Chunks of a pipeline."""

    virtual: int
    layers: tuple[int, ...] | None
    """Layers of each chunk in model order; None where they are spread evenly, as a plan does by itself."""
    counts: tuple[int, ...]
    """The same, also where even; empty where the number of layers is not known."""


def stages(options: Options, pipeline: int, model: ModelSpec | None) -> Stages:
    """Chunks of a pipeline of so many stages."""
    total = options.number(_NAMES["num_layers"]) or (model.num_layers if model else None)
    per_chunk = options.number(_NAMES["layers_per_virtual_stage"])
    virtual = options.number(_NAMES["virtual_stages"]) or 1
    layout = options.text(_NAMES["stage_layers"])
    first = options.number(_NAMES["first_stage_layers"])
    last = options.number(_NAMES["last_stage_layers"])
    embedding = options.on("--account-for-embedding-in-pipeline-split")
    loss = options.on("--account-for-loss-in-pipeline-split")
    if layout is not None:
        return _from_layout(options, layout, pipeline, total)
    if total is None:
        if per_chunk is not None or first is not None or last is not None or embedding or loss:
            options.faults.append(
                f"the number of layers is not said, and layers of stages need it; write {_NAMES['num_layers']} "
                "or give --model"
            )
        return Stages(virtual, None, ())
    counted = total + embedding + loss
    if pipeline * virtual > total + 2:
        options.faults.append(
            f"{pipeline} stages of {virtual} chunks are more than the {total} layers can fill"
        )
        return Stages(virtual, None, ())
    if per_chunk is not None:
        if counted % (pipeline * per_chunk):
            options.faults.append(
                f"{_NAMES['layers_per_virtual_stage']} {per_chunk} x {pipeline} stages does not divide "
                f"{counted} layers"
            )
        virtual = max(1, counted // (pipeline * per_chunk))
    if first is not None or last is not None:
        return _from_ends(options, pipeline, virtual, total, (first, last))
    return _even(options, pipeline * virtual, virtual, total, (embedding, loss))


def _even(options: Options, chunks: int, virtual: int, total: int, ends: tuple[bool, bool]) -> Stages:
    """Chunks of equal size, where embedding and loss may count as a layer each."""
    counted = total + sum(ends)
    if counted % chunks:
        options.faults.append(f"{counted} layers do not divide into {chunks} equal chunks")
        return Stages(virtual, None, ())
    counts = [counted // chunks] * chunks
    counts[0] -= ends[0]
    counts[-1] -= ends[1]
    return _stages(virtual, tuple(counts), total)


def _stages(virtual: int, counts: tuple[int, ...], total: int) -> Stages:
    """Chunks with these layers; not written out where a plan would choose the same."""
    usual = counts == layer_counts(total, len(counts), None)
    return Stages(virtual, None if usual else counts, counts)


def _from_layout(options: Options, layout: str, pipeline: int, total: int | None) -> Stages:
    text = expanded(layout)
    counts = tuple(part.count("t") for part in text.split("|"))
    unknown = set(text) - set("Etm|L")
    if unknown:
        options.faults.append(
            f"{_NAMES['stage_layers']} {layout!r}: letters other than E, t, m and L: {', '.join(sorted(unknown))}"
        )
    if len(counts) % pipeline:
        options.faults.append(
            f"{_NAMES['stage_layers']} has {len(counts)} chunks, which {pipeline} stages do not divide"
        )
    if total is not None and sum(counts) != total:
        options.faults.append(f"{_NAMES['stage_layers']} has {sum(counts)} layers, but the model {total}")
    if "m" in text and "m" in "".join(text.split("|")[:-1]):
        options.notes.append(
            f"{_NAMES['stage_layers']}: layers for multi-token prediction lie with the last chunk in a plan"
        )
    return _stages(max(1, len(counts) // pipeline), counts, sum(counts))


def expanded(layout: str) -> str:
    """A layout with every repetition written out: `E(t|)*2,L` becomes `Et|t|L`."""
    text = layout.replace(",", "").replace(" ", "")
    while (match := _REPEATED.search(text)) is not None:
        piece = match[1].strip("()") if match[1].startswith("(") else match[1]
        if len(text) + len(piece) * int(match[2]) > _LONGEST:
            return text  # the sign of multiplication that is left is a fault
        text = text[: match.start()] + piece * int(match[2]) + text[match.end() :]
    return text.replace("(", "").replace(")", "")


def _from_ends(
    options: Options, pipeline: int, virtual: int, total: int, ends: tuple[int | None, int | None]
) -> Stages:
    """Layers of the first and the last stage are given, the rest is spread evenly over the others."""
    given = {0: ends[0], pipeline - 1: ends[1]}
    fixed = {stage: layers for stage, layers in given.items() if layers is not None}
    rest, others = total - sum(fixed.values()), pipeline - len(fixed)
    per_stage = [fixed.get(stage, rest // others if others else 0) for stage in range(pipeline)]
    if rest < 0 or (rest if not others else rest % others) or any(layers % virtual for layers in per_stage):
        options.faults.append(
            f"{total} layers less those of the first and last stage ({sum(fixed.values())}) do not divide into "
            f"{others} stages of {virtual} chunks"
        )
        return Stages(virtual, None, ())
    counts = tuple(per_stage[number % pipeline] // virtual for number in range(pipeline * virtual))
    return _stages(virtual, counts, total)
