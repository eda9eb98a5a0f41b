"""`towtank models`: which models are known, and the shape, size and source of one."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from towtank.cli.options import Json

EXAMPLES = """\
\b
Examples:
  towtank models
  towtank models show llama3-8b
  towtank models show llama3-8b --json
"""

app = typer.Typer(
    invoke_without_command=True, help="List the models, or show the shape, size and source of one."
)


@app.callback(epilog=EXAMPLES)
def models(context: typer.Context, json: Json = False) -> None:
    """List the models, or show the shape, size and source of one."""
    if context.invoked_subcommand is not None:
        return
    from towtank.cli.text import count, emit, emit_json, parameters, table

    rows = _rows()
    if json:
        emit_json({"models": rows})
        return
    cells = [
        (
            ", ".join((row["name"], *row["aliases"])) if len(row["aliases"]) < 3 else row["name"],
            parameters(row["parameters"]),
            "" if row["active_parameters"] == row["parameters"] else parameters(row["active_parameters"]),
            count(row["num_layers"]),
            count(row["hidden"]),
            count(row["sequence"]),
        )
        for row in rows
    ]
    heads = ("model", "parameters", "active", "layers", "hidden", "sequence")
    emit(table(cells, heads, right=(1, 2, 3, 4, 5)))
    emit(
        "\nAny Hugging Face config.json or model YAML works too: --model PATH. More: towtank models show NAME"
    )


def _rows() -> list[dict[str, Any]]:
    from towtank.simulator.models.count import parameters
    from towtank.simulator.models.load import list_models, load_model

    aliases: dict[str, list[str]] = {}
    for name in list_models():
        aliases.setdefault(load_model(name).name, []).append(name)
    rows = []
    for name, names in sorted(aliases.items()):
        model, size = load_model(name), parameters(load_model(name))
        rows.append(
            {
                "name": name,
                "aliases": [other for other in names if other != name],
                "parameters": size.total,
                "active_parameters": size.active,
                "num_layers": model.num_layers,
                "hidden": model.hidden,
                "sequence": model.sequence,
                "source": model.source,
            }
        )
    return rows


@app.command("show", epilog=EXAMPLES)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a model, or path of a model file.")],
    json: Json = False,
) -> None:
    """Show the shape of a model, its exact number of parameters, FLOP per token and source."""
    from dataclasses import asdict

    from towtank.cli.text import emit, emit_json, flattened, table
    from towtank.simulator.models.count import parameters
    from towtank.simulator.models.flop import forward_flop, model_flop_per_token
    from towtank.simulator.models.load import load_model

    model = load_model(name)
    size = parameters(model)
    flop = {
        "flop_per_token": model_flop_per_token(model, model.sequence, causal=False),
        "flop_per_token_causal": model_flop_per_token(model, model.sequence, causal=True),
        "forward_flop_per_token": forward_flop(model, model.sequence, causal=False).total / model.sequence,
    }
    if json:
        emit_json({**asdict(model), "parameters": {**asdict(size), "total": size.total}, **flop})
        return
    sections: list[tuple[str, Sequence[Sequence[str]]]] = [
        (model.name, flattened(asdict(model), skip=("name", "source"))),
        (
            "parameters",
            [*((key, f"{value:,}") for key, value in asdict(size).items()), ("total", f"{size.total:,}")],
        ),
        (
            f"training FLOP a token, forward and backward, at {model.sequence:,} tokens",
            [
                ("attention in full (as MFU counts)", f"{flop['flop_per_token']:.6g}"),
                ("causal attention", f"{flop['flop_per_token_causal']:.6g}"),
            ],
        ),
        ("source", [(model.source or "not stated",)]),
    ]
    emit("\n\n".join(f"{head}\n{table(rows)}" for head, rows in sections))
