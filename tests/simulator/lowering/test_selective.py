"""What selective checkpointing of the torchtitan kind keeps and runs again, against counts by hand."""

from dataclasses import replace

import pytest
from lowered import HEADS, HIDDEN, SEQUENCE, gpt, plan, stack_with

from towtank.simulator.lowering.layer import backward_template
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.memory.activations import layer_activations
from towtank.simulator.models.records import Attention, Mlp
from towtank.simulator.operations import Matmul, Phase


def llama(**changes):
    """Grouped queries (a quarter of the heads are keys) and a gated feed-forward part of 3.5 h."""
    attention = Attention(HEADS, HEADS // 4, HIDDEN // HEADS)
    return gpt(attention=attention, mlp=Mlp(HIDDEN * 7 // 2, gated=True), **changes)


def sizes_of(model, **fields):
    return local_sizes(model, plan(recompute="selective", **fields), stack_with("torchtitan"))


def repeated(sizes):
    operations = backward_template(sizes, (False, None), False)
    return {
        operation.name.removesuffix(".forward"): (operation.work.n, operation.work.k)
        for operation in operations
        if operation.phase is Phase.RECOMPUTE and isinstance(operation.work, Matmul)
    }


def test_every_second_multiply_of_a_gated_layer_is_run_again():
    # query, KEY, value, OUTPUT, gate, UP, down
    h = HIDDEN
    expected = {"attention.key": (h // 4, h), "attention.output": (h, h), "mlp.up": (7 * h // 2, h)}
    assert repeated(sizes_of(llama())) == expected


def test_the_last_multiply_is_not_run_again():
    # query, KEY, value, OUTPUT, up, down: nothing in the layer reads what the down-projection gives
    assert set(repeated(sizes_of(gpt()))) == {"attention.key", "attention.output"}


@pytest.mark.parametrize("tensor", [1, 2])
def test_kept_bytes(tensor):
    # input, attention output, query and down h each, value h / 4, gate 3.5 h, in 2 bytes; one fp32 a head
    sizes = sizes_of(llama(), tensor_x=tensor, sequence_parallel=tensor > 1)
    kept = layer_activations(sizes, (False, None), recomputed=False).kept
    assert kept == pytest.approx(SEQUENCE * (7.75 * HIDDEN * 2 + 4 * HEADS) / tensor)


def test_it_lies_between_none_and_full():
    selective = sizes_of(llama())
    none = replace(selective, plan=plan())
    found = [layer_activations(sizes, (False, None), recomputed=False).kept for sizes in (selective, none)]
    full = layer_activations(none, (False, None), recomputed=True).kept
    assert full < found[0] < found[1]
