"""Flat arrays of optimizer states: who keeps which rows, and norms that count each element once."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from towtank.executor.distributed.boxes import Box, split
from towtank.executor.distributed.buckets import FIRST, LAST, Bucket, Summing, make_buckets, summing
from towtank.executor.distributed.mesh import Group, Mesh
from towtank.executor.distributed.pieces import Initial, Piece, Sharing
from towtank.executor.distributed.scatters import Scatters
from towtank.executor.distributed.weights import Weight
from towtank.executor.step.states import States
from towtank.simulator.plan import Plan

ALONE = Group("alone", (0,), 0)


def weight(
    name: str, shape: tuple[int, ...], *, copies: int = 1, decays: bool = True, layer: int = 0
) -> Weight:
    sharing = Sharing(ALONE, ALONE, ("data",), copies)
    made = Weight(
        name, (Piece(split(name, shape)),), sharing, Scatters(asynchronous=False), layer=layer, decays=decays
    )
    made.materialize(Initial("normal", 1.0), 0, torch.float64, torch.float64, torch.device("cpu"))
    return made


def sharded(index: int, size: int) -> Summing:
    return Summing((), Group("state_shard", tuple(range(size)), index), ())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_boxes_of_all_shards_tile_each_tensor(size: int) -> None:
    found: dict[str, torch.Tensor] = {}
    for index in range(size):
        weights = [weight("bias", (5,), decays=False), weight("matrix", (6, 3))]
        bucket = Bucket("layer.0", weights, sharded(index, size) if size > 1 else Summing((), None, ()))
        for part in bucket.parts:
            counts = found.setdefault(part.box.name, torch.zeros(part.box.full_shape))
            counts[part.box.slices] += 1
    assert set(found) == {"bias", "matrix"}
    assert all(bool((counts == 1).all()) for counts in found.values())


def test_layout_by_hand() -> None:
    """Of a matrix [3, 2] and a bias [4] the second of two shards keeps row 2, padding, and two numbers."""
    bias, matrix = weight("bias", (4,), decays=False), weight("matrix", (3, 2))
    bucket = Bucket("layer.0", [bias, matrix], sharded(1, 2))
    assert bucket.elements == 2 * 2 + 2
    assert bucket.decaying == 4  # the matrix comes first
    assert [part.box for part in bucket.parts] == [
        Box("matrix", (3, 2), (2, 0), (1, 2)),
        Box("bias", (4,), (2,), (2,)),
    ]
    states = States(bucket, torch.float64)
    assert torch.equal(states.master[:2], matrix.value[2])
    assert states.master[2:4].tolist() == [0.0, 0.0]
    assert torch.equal(states.master[4:], bias.value[2:])


def test_spread_and_collect() -> None:
    bias, matrix = weight("bias", (4,), decays=False), weight("matrix", (3, 2))
    bucket = Bucket("layer.0", [bias, matrix], sharded(0, 2))
    whole = bucket.spread({bias: bias.value, matrix: matrix.value})
    assert whole.shape == (2, 6)
    for index, own in enumerate(whole):
        other = Bucket("layer.0", [bias, matrix], sharded(index, 2))
        assert torch.equal(own, States(other, torch.float64).master)
    before = matrix.value.clone(), bias.value.clone()
    bucket.collect(2 * whole)
    assert torch.equal(matrix.value, 2 * before[0])
    assert torch.equal(bias.value, 2 * before[1])


def test_unsharded_weights_are_views() -> None:
    one, other = weight("a", (3, 2)), weight("b", (2, 2))
    before = one.value.clone()
    states = States(Bucket("layer.0", [one, other], Summing((), None, ())), torch.float64)
    assert torch.equal(one.value, before)
    assert states.gradient is not None
    one.accumulate(torch.ones(3, 2, dtype=torch.float64), "wgrad")
    assert states.gradient[:6].tolist() == [1.0] * 6
    states.master.zero_()
    assert one.value.abs().sum() == 0 and other.value.abs().sum() == 0


def test_each_element_counts_once_in_the_norm() -> None:
    """A matrix that 4 devices hold, and a vector that 2 hold: the shares of all devices add up to one of each."""
    matrix, vector = weight("m", (2, 2), copies=4), weight("v", (3,), copies=2, decays=False)
    states = States(Bucket("layer.0", [matrix, vector], Summing((), None, ())), torch.float64)
    assert states.gradient is not None
    states.gradient.copy_(torch.tensor([1.0, 2, 3, 4, 5, 6, 7]))
    by_hand = (1 + 4 + 9 + 16) / 4 + (25 + 36 + 49) / 2
    assert float(states.square_sum()) == pytest.approx(by_hand, rel=1e-15)


def test_norm_of_many_single_precision_numbers() -> None:
    """Sums in blocks keep the digits that one running sum of 20 million squares loses."""
    big = weight("m", (3_000_001,))
    states = States(Bucket("layer.0", [big], Summing((), None, ())), torch.float32)
    assert states.gradient is not None
    states.gradient.copy_(torch.rand(3_000_001, generator=torch.Generator().manual_seed(1)))
    exact = float(states.gradient.double().square().sum())
    assert float(states.square_sum()) == pytest.approx(exact, rel=1e-8)


def test_sums_of_each_zero_stage() -> None:
    """Where plans shard states, data becomes a reduce-scatter over shards and an all-reduce over replicas."""
    plan = Plan(data=4, data_shard=2, zero_stage=1, global_batch=4)

    sizes = {"data": 4, "state_shard": 2, "replicate": 2, "tensor_z": 2, "ends": 2}

    class Mapping:
        def group(self, name: str) -> Group:
            return Group(name, tuple(range(sizes[name])), 0)

    mesh: Mesh = Mapping()  # type: ignore[assignment]
    found = summing(plan, mesh, ("tensor_z", "data", "ends"))
    names = [[group.name for group in groups] for groups in (found.before, found.after)]
    assert names == [["tensor_z"], ["replicate", "ends"]]
    assert found.scatter is not None and found.scatter.name == "state_shard"
    sizes["state_shard"] = 1
    alone = summing(replace(plan, data_shard=1), mesh, ("tensor_z", "data", "ends"))
    assert [group.name for group in alone.before] == ["tensor_z", "replicate", "ends"]
    assert alone.scatter is None and alone.after == ()
    for stage in (0, 3):
        plain = summing(Plan(data=4, zero_stage=stage, global_batch=4), mesh, ("data",))
        assert [group.name for group in plain.before] == ["data"] and plain.scatter is None


def test_buckets_by_layer_and_for_the_stage() -> None:
    mesh = Mesh(Plan())
    weights = [weight(f"w{layer}.{n}", (2,), layer=layer) for layer, n in product((0, 1), (0, 1))]
    table, head = weight("model.embedding", (4, 2), layer=-1), weight("model.head", (4, 2), layer=-1)
    table.used_first = True
    every = [table, *weights, head]
    by_layer = make_buckets(every, Plan(), mesh, by_layer=True)
    assert [bucket.name for bucket in by_layer] == ["model.embedding", "layer.0", "layer.1", "model.head"]
    assert [bucket.model_places for bucket in by_layer] == [{FIRST}, {0}, {1}, {LAST}]
    (stage,) = make_buckets(every, Plan(), mesh, by_layer=False)
    assert stage.name == "stage" and stage.elements == 24
    assert stage.model_places == {FIRST, 0, 1, LAST}
