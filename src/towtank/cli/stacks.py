"""`towtank stacks`: which software a job can run on, and what one does."""

from typing import Annotated, Any

import typer

from towtank.cli.options import Json

EXAMPLES = """\
\b
Examples:
  towtank stacks
  towtank stacks show megatron-core
  towtank stacks show megatron-core --json
"""

app = typer.Typer(invoke_without_command=True, help="List the software stacks, or show what one does.")


@app.callback(epilog=EXAMPLES)
def stacks(context: typer.Context, json: Json = False) -> None:
    """List the software stacks, or show what one does."""
    if context.invoked_subcommand is not None:
        return
    from towtank.cli.text import emit, emit_json, table
    from towtank.simulator.stacks.load import list_stacks, load_stack

    loaded = [load_stack(name) for name in list_stacks()]
    if json:
        rows = [
            {"name": stack.name, "description": stack.description, "fitted": stack.fitted.source}
            for stack in loaded
        ]
        emit_json({"stacks": rows})
        return
    emit(table([(stack.name, stack.description) for stack in loaded], ("stack", "what it is")))


@app.command("show", epilog=EXAMPLES)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a stack, or path of a stack file.")],
    json: Json = False,
) -> None:
    """Show what a stack supports, which kernels and communication it uses, and what was fitted."""
    from dataclasses import asdict

    from towtank.cli.text import emit, emit_json, flattened, paragraph, table
    from towtank.simulator.stacks.load import load_stack

    stack = load_stack(name)
    record: dict[str, Any] = asdict(stack)
    if json:
        emit_json(record)
        return
    emit(f"{stack.name}: {stack.description}\n")
    emit(table(flattened(record, skip=("name", "description", "sources"))))
    emit("\nsources\n" + "\n".join(paragraph(source) for source in stack.sources))
