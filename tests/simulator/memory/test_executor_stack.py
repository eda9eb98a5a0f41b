"""What the executor's stack says about its memory, by hand."""

from dataclasses import replace

from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import chunks_of
from towtank.simulator.lowering.weights import Weights
from towtank.simulator.memory.stages import gathered_bytes, state_bytes
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.load import load_stack

STACK = load_stack("towtank-executor")
MODEL = load_model("tiny-llama")
WEIGHTS = Weights(800, 0, 0)


def weight_bytes(plan: Plan) -> float:
    """Of 800 weights, in fp32."""
    return state_bytes(local_sizes(MODEL, plan, STACK), WEIGHTS)["weights"]


def test_sharded_states_have_weights_of_their_own() -> None:
    whole = Plan(data=4, global_batch=4, precision="fp32")
    assert weight_bytes(whole) == 4 * 800
    for stage in (1, 2):
        assert weight_bytes(replace(whole, zero_stage=stage)) == 4 * (800 + 200)
    assert weight_bytes(replace(whole, zero_stage=3)) == 4 * 200
    # replicas of one shard: nothing is sharded over data
    assert weight_bytes(replace(whole, zero_stage=1, data_shard=1)) == 4 * 800


def test_whole_gradients_under_way() -> None:
    """Eight reductions and the gradient in hand: more than two layers of four linear layers, so at most three."""
    model = replace(MODEL, vocab=64)  # a table would be larger than all of it
    plan = Plan(
        tensor_z=2, global_batch=2, precision="fp32", overlap=Overlap(reduce_scatter=True, all_gather=False)
    )
    few = replace(STACK, communication=replace(STACK.communication, scatters_under_way=1))
    blocking = replace(plan, overlap=Overlap(reduce_scatter=False, all_gather=False))
    found = []
    for stack, one in ((STACK, plan), (few, plan), (STACK, blocking)):
        sizes = local_sizes(model, one, stack)
        found.append(gathered_bytes(sizes, chunks_of(sizes)[0]))
    unit = found[2] / 2  # a weight, and its gradient
    assert found[1] == 3 * unit
    assert 3 * unit < found[0] <= 10 * unit
    hidden, mlp = MODEL.hidden, MODEL.mlp.hidden
    assert unit == 4 * 2 * hidden * mlp  # both halves of the gated projection
