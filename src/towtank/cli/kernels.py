"""`towtank kernels`: kernels of a training step on the device at hand: which are right, and how fast."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli import kernels_bench, kernels_compare, kernels_tune
from towtank.cli.options import Json

if TYPE_CHECKING:
    from towtank.kernels.launch import Entry
    from towtank.kernels.records import Backend, Kernel

app = typer.Typer(
    no_args_is_help=True,
    help="Kernels of a training step on the device at hand: list, validate, measure and tune them.",
    epilog="Start with `towtank kernels list`, then `towtank kernels validate`.",
)

Device = Annotated[
    str | None,
    typer.Option("--device", metavar="TYPE", help="cpu or cuda; default: the GPU where there is one."),
]
KernelName = Annotated[
    str | None,
    typer.Option("--kernel", metavar="NAME", help="This kernel only; see `towtank kernels list`."),
]
BackendName = Annotated[
    str | None,
    typer.Option("--backend", metavar="NAME", help="This backend only: library, triton or c."),
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", metavar="TYPE", help="This precision only: fp32, fp16, bf16, fp64 or fp8."),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of random inputs; default: another each time."),
]

AllTiles = Annotated[
    bool, typer.Option("--all-tiles", help="Try every tile of a backend, not its default only.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, help="Processes that validate at once; default: 1 on a CPU, 12 at most on a GPU."
    ),
]

VALIDATE_EXAMPLES = """\
\b
Examples:
  towtank kernels validate
  towtank kernels validate --kernel matmul --dtype bf16 --json
  TRITON_INTERPRET=1 towtank kernels validate --backend triton

\b
Exit codes: 0 all are right, 1 a kernel is wrong, 2 wrong input.
"""
LIST_EXAMPLES = """\
\b
Examples:
  towtank kernels list
  towtank kernels list --device cpu --json
"""


@app.command("list", epilog=LIST_EXAMPLES)
def list_(device: Device = None, json: Json = False) -> None:
    """List kernels and backends with what is known of them on this device."""
    from towtank.cli.kernels_choice import checked_device, precision
    from towtank.cli.text import emit, emit_json, paragraph, table
    from towtank.kernels.backends import library_missing
    from towtank.kernels.launch import recorded
    from towtank.kernels.registry import kernels

    chosen = checked_device(device)
    missing = library_missing(chosen)
    entries = [] if missing else recorded(chosen)
    rows = [
        _status(kernel, backend, chosen, entries)
        for kernel in kernels().values()
        for backend in kernel.backends
    ]
    if json:
        emit_json({"kernels": rows})
        return
    cells = [
        (row["kernel"], row["backend"], " ".join(precision(each) for each in row["dtypes"]), row["status"])
        for row in rows
    ]
    emit(f"Kernels on {_where(chosen) if not missing else chosen}\n")
    emit(table(cells, ("kernel", "backend", "precisions", "status")))
    reasons = dict.fromkeys(f"{row['backend']}: {row['reason']}" for row in rows if "reason" in row)
    if reasons:
        emit("\nNot available\n" + "\n".join(paragraph(each) for each in reasons))
    emit("\nA variant that is not validated is tried before it is used: towtank kernels validate")


def _where(device: str) -> str:
    from towtank.kernels.device import device_name, software

    return f"{device}: {device_name(device)} ({software(device)})"


def _status(kernel: "Kernel", backend: "Backend", device: str, entries: "list[Entry]") -> dict[str, Any]:
    own = [each for each in entries if (each.kernel, each.backend) == (kernel.name, backend.name)]
    row = {
        "kernel": kernel.name, "backend": backend.name, "device": device, "dtypes": list(backend.dtypes),
        "dimensions": list(kernel.dimensions),
    }  # fmt: skip
    if (missing := backend.missing(device)) is not None:
        return {**row, "state": "not available", "status": "not available", "reason": missing}
    state, words = _known(own, backend.dtypes)
    return {**row, "state": state, "status": words}


def _known(own: "list[Entry]", dtypes: tuple[str, ...]) -> tuple[str, str]:
    """State of a backend by what was tried of it, and the same in words.

    A tile that failed beside one that passed is not used; where none has passed, the precision is not.
    """
    from towtank.cli.kernels_choice import precision
    from towtank.cli.text import plural

    right = [each.dtype for each in own if each.passed]
    wrong = [each for each in own if not each.passed]
    for each in wrong:
        if each.dtype not in right:
            return "failed", f"failed: {precision(each.dtype)}: {each.fault} (seed {each.seed})"
    if not right:
        return "not validated", "not validated"
    failed = f"; {plural(len(wrong), 'tile')} failed and not used" if wrong else ""
    there, left = (
        [precision(each) for each in dtypes if (each in right) == known] for known in (True, False)
    )
    if left:
        return "validated in part", f"validated: {' '.join(there)}; not {' '.join(left)}{failed}"
    return "validated", f"validated ({plural(len(right), 'variant')}{failed})"


@app.command("validate", epilog=VALIDATE_EXAMPLES)
def validate(
    kernel: KernelName = None,
    backend: BackendName = None,
    dtype: Dtype = None,
    device: Device = None,
    seed: Seed = None,
    all_tiles: AllTiles = False,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Compare kernels with float64 on fresh random data, odd sizes, strides, NaN and poisoned outputs.

    What passes is recorded for this device; the exit code is 1 if a kernel is wrong.
    """
    from dataclasses import asdict

    from towtank.cli.kernels_choice import Choice, progress, writing
    from towtank.cli.text import emit, emit_json
    from towtank.kernels.launch import fresh_seed, record
    from towtank.kernels.parallel import Variant, usual_jobs
    from towtank.kernels.parallel import verdicts as try_variants

    choice = Choice.of(kernel, backend, dtype, device)
    variants = choice.variants(all_tiles)
    used = fresh_seed() if seed is None else seed
    names = [Variant(one.name, by.name, kind, tile) for one, by, kind, tile in variants]
    found = try_variants(names, choice.device, used, jobs or usual_jobs(choice.device))
    verdicts, entries = [], []
    for number, each in enumerate(names, 1):
        progress(number, len(names), f"{each.kernel} {each.backend} {each.dtype}")
        verdicts.append(next(found))
        with writing():
            entries.append(record(verdicts[-1], choice.device, used))
    if json:
        rows = [asdict(each) for each in entries]
        emit_json({"device": choice.device, "seed": used, "skipped": choice.skipped, "variants": rows})
    else:
        from towtank.cli.kernels_text import verdict_text

        emit(verdict_text(verdicts, choice.skipped, _where(choice.device), used))
    if any(not each.passed for each in verdicts):
        raise typer.Exit(1)


app.command("tune", epilog=kernels_tune.EXAMPLES)(kernels_tune.tune)
app.command("compare", epilog=kernels_compare.EXAMPLES)(kernels_compare.compare)
app.command("bench", epilog=kernels_bench.BENCH_EXAMPLES)(kernels_bench.bench)
app.command("profile", epilog=kernels_bench.PROFILE_EXAMPLES)(kernels_bench.profile)
