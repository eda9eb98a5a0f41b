"""Validation finds mistakes that were made on purpose in the device code, each of a kind that is made by accident."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from tests.kernels.small_tiles import TILES

from towtank.kernels.records import Backend
from towtank.kernels.registry import kernels
from towtank.kernels.validate import validate

CODE = Path(str(importlib.util.find_spec("towtank.kernels.triton_code").submodule_search_locations[0]))
PLACE = "tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)"
MUTATIONS = {
    # what a program owns
    "second block of elements": ("activations", "swiglu", PLACE, "tl.arange(0, BLOCK)"),
    "last row of a program": ("norms", "rms_norm_backward", "ROWS + ROWS, rows)", "ROWS + ROWS - 1, rows)"),
    "second block of rows": ("fp8_cast", "fp8_cast", "tl.program_id(0) * ROWS + ", ""),
    "second block of columns": ("moe_permute", "moe_permute", "tl.program_id(1) * BLOCK + ", ""),
    "last query": ("attention", "attention", "row[:, None] < sequence) & (d", "row[:, None] < sequence - 1) & (d"),
    "last group of rows": ("matmul", "matmul", "min(rows - group * GROUP_M, GROUP_M)", "GROUP_M"),
    "block of an expert": (
        "grouped_matmul", "grouped_matmul", "block - tl.sum(tl.where(own < expert, blocks, 0), 0)", "0",
    ),
    "expert without rows": ("grouped_matmul", "grouped_matmul_dgrad", "<= block), 1, 0)", "< block), 1, 0)"),
    # what is read
    "second step of the depth": ("matmul", "matmul_dgrad", "left += BLOCK_K * a_column", "left += a_column"),
    "rest of the depth": ("matmul", "matmul_wgrad", "mask=depth[None, :] < k - start", "mask=depth[None, :] < k"),
    "strides of values": ("attention", "attention", "load_rows(v, column, v_row", "load_rows(v, column, k_row"),
    "sequences of a batch": ("attention", "attention", "v += batch * v_batch", "v += batch * k_batch"),
    "shared heads": ("attention", "attention", "head // group * k_head", "head % (heads // group) * k_head"),
    "label of a later block": ("cross_entropy", "cross_entropy", "place == label", "column == label"),
    "what fills a block": ("cross_entropy", "cross_entropy", 'other=float("-inf")', "other=0.0"),
    "angles of a batch": ("rotary", "rotary", "token % sequence", "token // sequence"),
    # masks
    "own key": ("attention", "attention", "column <= row", "column < row"),
    "next key": ("attention", "attention", "column <= row", "column <= row + 1"),
    "one key of a window more": ("attention", "attention", "row - column < window", "row - column <= window"),
    "keys after the last": (
        "attention", "attention", "sequence // BLOCK_N * BLOCK_N", "tl.cdiv(sequence, BLOCK_N) * BLOCK_N",
    ),
    "queries that see a part": (
        "attention_backward", "attention_backward",
        "tl.cdiv(first + BLOCK_N - 1, BLOCK_M)", "tl.cdiv(first, BLOCK_M)",
    ),
    "last queries of a window": (
        "attention_backward", "attention_backward", "first + BLOCK_N + window - 1", "first + BLOCK_N",
    ),
    # arithmetic
    "no maximum in attention": (
        "attention", "attention", "tl.maximum(top, tl.max(scores, 1) * scale)", "tl.zeros_like(top)",
    ),
    "no maximum in the loss": (
        "cross_entropy", "cross_entropy", "tl.maximum(top, value)", "tl.zeros((BLOCK,), tl.float32)",
    ),
    "scale of scores": ("attention", "attention", "scores * scale - level", "scores * (scale * 1.001) - level"),
    "epsilon of a norm": ("norms", "rms_norm", "columns + epsilon", "columns + 1e-5"),
    "epsilon of the optimizer": ("adamw", "adamw", "tl.load(settings + 3)", "1e-8"),
    "decay of weights": ("adamw", "adamw", "w * (1.0 - rate * decay)", "w"),
    "scale of a group of zeros": ("fp8_cast", "fp8_cast", "tl.maximum(magnitude, FLOOR)", "magnitude"),
    "small numbers of 8 bits": ("fp8_cast", "fp8_cast", "(121 << 23), even", "(121 << 23), 0 * even"),
    "sign of small numbers": (
        "fp8_cast", "fp8_cast",
        "((bits >> 24) & 0x80)", "tl.where(magnitude < (121 << 23), 0, (bits >> 24) & 0x80)",
    ),
    # what is written
    "weight of the model": (
        "adamw", "adamw", "    tl.store(weight + place, w.to(weight.dtype.element_ty), mask=inside)\n", "",
    ),
    "beyond the end": ("activations", "gelu", "result.to(y.dtype.element_ty), mask=inside", "result"),
    "before the start": ("rotary", "rotary", "tl.store(y + place + half", "tl.store(y + place - half"),
    # what must not get lost
    "NaN of the second input": ("activations", "swiglu", "sigmoid(g) * u)", "sigmoid(g) * tl.where(u == u, u, 0.0))"),
    "sign of an infinity": ("activations", "gelu", "0.5 * v *", "0.5 * tl.where(v > 1e30, -v, v) *"),
}  # fmt: skip
"""File, kernel, the right code and the wrong one."""


def _mutant(folder: Path, file: str, right: str, wrong: str) -> ModuleType:
    """The file with the first place of some code exchanged; a file of its own, for Triton reads its source."""
    source = (CODE / f"{file}.py").read_text("utf-8")
    path = folder / f"{file}_mutant.py"
    path.write_text(source.replace(right, wrong, 1), "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert source != path.read_text("utf-8")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _found(folder: Path, name: str) -> bool:
    """Whether validation finds the mistake, in whichever case comes first."""
    file, operation, right, wrong = MUTATIONS[name]
    launch = _mutant(folder, file, right, wrong).LAUNCHERS[operation]
    kernel, tile = kernels()[operation], TILES.get(operation, {})
    triton_code = kernel.backend("triton")
    dtype = triton_code.dtypes[0]
    backend = Backend("triton", lambda: launch, (dtype,), lambda device: None)
    # the last cases first, which are quick and find most
    cases = (*reversed(kernel.cases), *triton_code.cases(tile, dtype))
    verdicts = (validate(replace(kernel, cases=(each,)), backend, dtype, tile, seed=7) for each in cases)
    return any(not verdict.passed for verdict in verdicts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", MUTATIONS)
def test_mistakes_are_found(name: str, tmp_path: Path) -> None:
    assert _found(tmp_path, name)
