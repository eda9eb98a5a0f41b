"""The model of a row: its columns, or the zoo where columns cannot hold the shape."""

import dataclasses
import re
from typing import Any

from towtank.simulator.models.count import parameters
from towtank.simulator.models.errors import ModelError
from towtank.simulator.models.load import list_models, load_model
from towtank.simulator.models.records import Attention, Experts, Mlp, ModelSpec
from towtank.simulator.models.schema import broken_rules
from towtank.validation.mapping.rules import InexpressibleError, every, first, matches, table
from towtank.validation.rows import Run

_TOLERANCE = 0.1
"""Relative difference of parameters above which the row's size class and its shape are said to disagree."""


def model_of(run: Run, assumptions: list[str]) -> ModelSpec:
    """The model that the row trains, at the sequence length of the row.

    Raises:
        InexpressibleError: the shape is not known, or has layers that are not modelled.
    """
    rules = table("models")
    refused = first(run, rules["not_modelled"])
    if refused is not None:
        raise InexpressibleError(f"{run.model}: {refused['reason']}")
    model = _from_zoo(run, assumptions) or _from_columns(run, assumptions)
    for rule, _ in every(run, rules["notes"]):
        model = dataclasses.replace(model, **rule["set"])
    model = _packed(run, model, assumptions)
    assumptions += [rule["says"] for rule in rules["near"] if matches(run, rule["when"])]
    faults = broken_rules(model)
    if faults:
        raise InexpressibleError(f"{run.model} is not a model: {'; '.join(faults)}")
    _compare_size(run, model, assumptions)
    return model


def _packed(run: Run, model: ModelSpec, assumptions: list[str]) -> ModelSpec:
    """The model with an attention window in place of the short documents that its sequences are packed from."""
    rule = first(run, table("models")["packed"])
    if rule is None or not isinstance(model.attention, Attention):
        return model
    assumptions.append(rule["says"])
    return dataclasses.replace(model, attention=dataclasses.replace(model.attention, windows=(rule["seen"],)))


def _from_zoo(run: Run, assumptions: list[str]) -> ModelSpec | None:
    rule = first(run, table("models")["zoo"])
    name = rule["model"] if rule else None
    missing = [key for key in ("layers", "hidden") if getattr(run, key) is None]
    if name is None and missing:
        name = _zoo_name(run.model)
    model = load_model(name) if name else None
    if model is None or not _same_shape(run, model):
        if missing:
            raise InexpressibleError(
                f"shape of {run.model or 'the model'} unknown: {', '.join(missing)} blank and no model of the zoo "
                f"has that name and shape"
            )
        return None
    assumptions.append(f"shape of {name} of the zoo")
    return _resized(model, run)


def _zoo_name(name: str) -> str | None:
    """The zoo's name for a model as people write it, or None."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9.]", "", text.lower())

    known = {plain(entry): entry for entry in list_models()}
    return known.get(plain(name))


def _same_shape(run: Run, model: ModelSpec) -> bool:
    pairs = [(run.hidden, model.hidden), (run.heads, model.attention.heads)]
    if model.experts is not None:
        pairs += [(run.moe_experts, model.experts.num_experts), (run.moe_ffn_hidden, model.experts.hidden)]
    return all(given is None or given == own for given, own in pairs)


def _resized(model: ModelSpec, run: Run) -> ModelSpec:
    sequence = run.seq_len or model.sequence
    experts = model.experts
    if experts is not None and run.layers is not None and experts.first_dense_layers >= run.layers:
        experts = dataclasses.replace(experts, first_dense_layers=run.layers - 1)
    return dataclasses.replace(
        model,
        name=run.model or model.name,
        num_layers=run.layers or model.num_layers,
        vocab=run.vocab or model.vocab,
        sequence=sequence,
        max_positions=max(model.max_positions, sequence)
        if model.positions == "learned"
        else model.max_positions,
        experts=experts,
    )


def _from_columns(run: Run, assumptions: list[str]) -> ModelSpec:
    assert run.layers and run.hidden
    heads = _heads(run, assumptions)
    family = first(run, table("models")["families"])
    assert family is not None, "the last rule fits everything"
    head_dim = run.head_dim or _head_dim(run.hidden, heads)
    gated = _gated(run, assumptions)
    ffn = _ffn(run, assumptions)
    norm = family["norm"]
    sequence = _known(run.seq_len, "seq_len")
    fields: dict[str, Any] = {
        "positions": family["positions"],
        "tied_embeddings": family["tied_embeddings"],
        "parallel_block": family.get("parallel_block", False),
        "embedding_norm": family.get("embedding_norm", False),
    }
    assumptions.append(
        f"{norm}, {family['positions']} positions, {'tied' if family['tied_embeddings'] else 'untied'} embeddings"
    )
    return ModelSpec(
        name=run.model or f"{run.layers} layers of {run.hidden}",
        num_layers=run.layers,
        hidden=run.hidden,
        vocab=_vocab(run, assumptions),
        sequence=sequence,
        attention=Attention(
            heads, _kv_heads(run, heads, assumptions), head_dim, qk_norm=family.get("qk_norm", False)
        ),
        mlp=Mlp(ffn, gated, bias=norm == "layernorm" and not gated),
        experts=_experts(run, gated, ffn, assumptions),
        norm=norm,
        norm_bias=norm == "layernorm",
        max_positions=sequence if family["positions"] == "learned" else 0,
        source="columns of the row",
        **fields,
    )


def _known(value: int | None, name: str) -> int:
    if value is None:
        raise InexpressibleError(f"{name} is blank; the row does not say how much a step computes")
    return value


def _head_dim(hidden: int, heads: int) -> int:
    if hidden % heads:
        raise InexpressibleError(
            f"hidden = {hidden} is not a multiple of heads = {heads} and head_dim is blank"
        )
    return hidden // heads


def _heads(run: Run, assumptions: list[str]) -> int:
    if run.heads is not None:
        return run.heads
    assert run.hidden
    for head_dim in table("models")["blanks"]["head_dims"]:
        if run.hidden % (head_dim * (run.tp or 1)) == 0:
            assumptions.append(f"heads blank: {run.hidden // head_dim}, of {head_dim} features")
            return int(run.hidden // head_dim)
    raise InexpressibleError(f"heads blank, and hidden = {run.hidden} does not tell")


def _kv_heads(run: Run, heads: int, assumptions: list[str]) -> int:
    if run.kv_heads is None:
        assumptions.append(f"kv_heads blank: {heads}, as many as heads")
    return run.kv_heads or heads


def _vocab(run: Run, assumptions: list[str]) -> int:
    if run.vocab is not None:
        return run.vocab
    vocab: int = table("models")["blanks"]["vocab"]
    assumptions.append(f"vocab blank: {vocab}")
    return vocab


def _gated(run: Run, assumptions: list[str]) -> bool:
    if run.gated_mlp is not None:
        return run.gated_mlp
    gated = re.search(table("models")["blanks"]["gated_pattern"], run.model, re.IGNORECASE) is not None
    assumptions.append(f"gated_mlp blank: {'gated' if gated else 'not gated'} by the model's name")
    return gated


def _ffn(run: Run, assumptions: list[str]) -> int:
    if run.ffn_hidden is not None:
        return run.ffn_hidden
    if run.moe_ffn_hidden is not None:
        return run.moe_ffn_hidden
    assert run.hidden
    width: int = table("models")["blanks"]["ffn_over_hidden"] * run.hidden
    assumptions.append(f"ffn_hidden blank: {width}, 4 x hidden")
    return width


def _experts(run: Run, gated: bool, ffn: int, assumptions: list[str]) -> Experts | None:
    if not run.moe_experts or run.moe_experts == 1:
        return None
    if run.moe_topk is None:
        raise InexpressibleError(f"moe_experts = {run.moe_experts}, but moe_topk is blank")
    if run.moe_ffn_hidden is None:
        assumptions.append(f"moe_ffn_hidden blank: {ffn}, as ffn_hidden")
    assumptions.append("every layer has experts, none are shared")
    return Experts(run.moe_experts, run.moe_topk, run.moe_ffn_hidden or ffn, gated)


def _compare_size(run: Run, model: ModelSpec, assumptions: list[str]) -> None:
    if not run.params_b:
        return
    try:
        total = parameters(model).total / 1e9
    except (ModelError, ValueError):
        return
    if abs(total / run.params_b - 1) > _TOLERANCE:
        assumptions.append(f"the shape counts {total:.4g}B parameters, the row prints {run.params_b:g}B")
