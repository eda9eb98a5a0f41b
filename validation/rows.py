"""Runs from a CSV file: strict about columns, lenient about how a cell spells its value.

Lenient on purpose, because published tables are collected from many hands: `8`, `8.0` and ` 8 ` are one number;
`1`, `1.0`, `True` and `yes` are one truth; an empty cell, `nan`, `none`, `n/a`, `-` and `unknown` are blank. A cell
that is none of these does not stop the file: it is listed in `Run.faults`, and the run counts as not expressed.
"""

import csv
import dataclasses
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from towtank.hardware_profiles.nearest import did_you_mean

PUBLISHED = Path(__file__).parent / "published"
RUNS = PUBLISHED / "runs.csv.gz"
FAILED = PUBLISHED / "failed.csv.gz"
REQUIRED = ("id", "device", "gpus", "model", "seq_len", "global_batch_seqs")
"""Columns that must exist (a cell may still be blank); every other column may be missing."""

_BLANK = {"", "nan", "none", "null", "n/a", "na", "-", "?", "unknown"}
_TRUE, _FALSE = {"1", "1.0", "true", "yes", "on"}, {"0", "0.0", "false", "no", "off"}


class RunsError(ValueError):
    """A file of runs cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run as its source prints it; None is a blank cell. The names are the columns of the file."""

    id: str
    device: str
    gpus: int | None
    """Devices, as the plan counts them."""
    model: str
    seq_len: int | None
    global_batch_seqs: int | None
    gate: bool | None = None
    """Complete enough for a gate of accuracy."""
    source: str = ""
    source_locator: str = ""
    source_kind: str = ""
    system: str = ""
    gpus_per_node: int | None = None
    params_b: float | None = None
    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    head_dim: int | None = None
    kv_heads: int | None = None
    ffn_hidden: int | None = None
    gated_mlp: bool | None = None
    vocab: int | None = None
    moe_experts: int | None = None
    moe_topk: int | None = None
    moe_ffn_hidden: int | None = None
    micro_batch: int | None = None
    grad_accum: int | None = None
    tp: int | None = None
    pp: int | None = None
    vpp: int | None = None
    dp: int | None = None
    cp: int | None = None
    ep: int | None = None
    gx: int | None = None
    gy: int | None = None
    gz: int | None = None
    gdata: int | None = None
    sequence_parallel: bool | None = None
    zero_stage: str = ""
    recompute: str = ""
    precision: str = ""
    flash_attention: bool | None = None
    framework: str = ""
    step_time_s: float | None = None
    tokens_per_s_per_gpu: float | None = None
    tflops_per_gpu: float | None = None
    tflops_kind: str = ""
    mfu_pct: float | None = None
    hfu_pct: float | None = None
    peak_mem_gib: float | None = None
    notes: str = ""
    faults: tuple[str, ...] = ()
    """Cells that could not be read, as sentences."""


@cache
def _kinds() -> dict[str, type]:
    """Type of each column: the one in its annotation that is not None."""
    hints = get_type_hints(Run)
    hints.pop("faults")
    return {
        name: next((part for part in get_args(hint) if part is not type(None)), hint)
        for name, hint in hints.items()
    }


def columns() -> tuple[str, ...]:
    """Every column that is understood."""
    return tuple(_kinds())


def read_runs(path: Path | str) -> list[Run]:
    """Read runs from a CSV file (UTF-8, one header line; gzip where the name ends in .gz).

    Columns that are not understood are ignored: a file may carry remarks of its own.

    Raises:
        RunsError: the file cannot be read, has no rows, or lacks a required column (all of them are named).
    """
    return parse_runs(_text_of(Path(path)), str(path))


def parse_runs(text: str, where: str) -> list[Run]:
    """Runs from the text of a CSV file; `where` names it in messages.

    Raises:
        RunsError: see `read_runs`.
    """
    reader = csv.DictReader(io.StringIO(text))
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        _check_header(header, where)
        runs = [_run(row, number) for number, row in enumerate(reader, start=2)]
    except csv.Error as error:
        raise RunsError(f"{where}, line {reader.line_num}: is not CSV: {error}") from error
    if not runs:
        raise RunsError(f"{where}: has a header but no rows; give one row for each run")
    return runs


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise RunsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise RunsError(f"{path}: is not a gzip file: {error}") from error
    except UnicodeDecodeError as error:
        raise RunsError(f"{path}: must be UTF-8, but byte {error.start} is not; save it as UTF-8") from error


def _check_header(header: Sequence[str], where: str) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        hints = ", ".join(f"{name}{did_you_mean(name, header)}" for name in missing)
        optional = ", ".join(name for name in columns() if name not in REQUIRED)
        raise RunsError(
            f"{where}: lacks the column{'s' if len(missing) > 1 else ''} {hints}; the first line must name at least "
            f"{', '.join(REQUIRED)} (optional: {optional})"
        )
    doubled = sorted({name for name in header if header.count(name) > 1 and name in columns()})
    if doubled:
        raise RunsError(f"{where}: has the column {', '.join(doubled)} more than once; rename one")


def _run(row: Mapping[str | None, Any], number: int) -> Run:
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, kind in _kinds().items():
        cell = row.get(name)
        values[name] = _cell(name, cell.strip() if isinstance(cell, str) else "", kind, faults)
    if row.get(None):
        faults.append("the line has more cells than the header; quote cells that contain commas")
    if not values["id"]:
        values["id"] = f"line {number}"
    return Run(**values, faults=tuple(faults))


def _cell(name: str, text: str, kind: type, faults: list[str]) -> Any:
    if kind is str:
        return "" if text.lower() in ("nan", "null") else text
    if text.lower() in _BLANK:
        return None
    if kind is bool:
        return _truth(name, text, faults)
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        faults.append(f"{name} = {text!r} must be a number or blank")
        return None
    if value != value or value in (float("inf"), -float("inf")) or value < 0:
        faults.append(f"{name} = {text!r} must be a finite number that is not negative")
        return None
    if kind is int:
        return _whole(name, text, value, faults)
    return _positive(name, value, faults)


def _truth(name: str, text: str, faults: list[str]) -> bool | None:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    faults.append(f"{name} = {text!r} must be 1, 0, true, false or blank")
    return None


def _whole(name: str, text: str, value: float, faults: list[str]) -> int | None:
    if value != int(value):
        faults.append(f"{name} = {text!r} must be a whole number")
        return None
    # a degree or size of 0 is how some tables write "not used"
    return int(value) or None


def _positive(name: str, value: float, faults: list[str]) -> float | None:
    if value == 0 and name == "step_time_s":
        faults.append("step_time_s = 0 must be positive or blank")
        return None
    return value


def as_columns(runs: Iterable[Run]) -> dict[str, list[Any]]:
    """The runs by column, for a table."""
    rows = [dataclasses.asdict(run) for run in runs]
    return {name: [row[name] for row in rows] for name in columns()}
