"""How far a step folds: the largest job of Narayanan et al. (SC'21, Table 1), 1T parameters on 3,072 devices."""

from itertools import chain

import pytest

from towtank import Plan, load_model, load_stack
from towtank.simulator.operations import Block
from towtank.simulator.program import Program, lower

PLAN = Plan(
    tensor_x=8, pipeline=64, data=6, micro_batch=1, global_batch=3072, recompute="full", precision="fp16"
)


@pytest.fixture(scope="module")
def program() -> Program:
    return lower(load_model("megatron-1t"), PLAN, load_stack("megatron-2021"))


def _blocks(program: Program) -> list[Block]:
    return list(chain(*program.forward, *program.backward))


def test_stages_fold_to_six_blocks(program: Program) -> None:
    # first, middle and last stage; forward and backward
    assert len(_blocks(program)) == 2 * 64
    assert len({block.signature for block in _blocks(program)}) == 6


def test_what_is_folded(program: Program) -> None:
    # each of 48 devices of a stage runs a block for each of 512 micro-batches
    operations = sum(len(block.operations()) for block in _blocks(program))
    assert 170e6 < operations * 512 * 48 < 190e6
    templates = {segment.template for block in _blocks(program) for segment in block.segments}
    assert sum(map(len, templates)) < 200
