"""Weights of routed experts: who holds which experts and features, and who shares them.

The expert mapping tiles the devices of a pipeline stage by rank: features of an expert over neighbours
(expert_tensor), experts over those (expert), copies over the rest, which is split again into shards and replicas.
Without it every device uses all experts, and holds them as it holds any other weight.
"""

from towtank.executor.distributed.boxes import split
from towtank.executor.distributed.mesh import GRADIENTS, Mesh
from towtank.executor.distributed.pieces import Initial, Piece, Sharing, dense_sharing
from towtank.executor.distributed.store import DEVIATION, Store
from towtank.executor.layers.experts.routed import RoutedExperts
from towtank.simulator.groups import expert_mapped
from towtank.simulator.models.records import Experts


def _sharing(mesh: Mesh) -> Sharing:
    if not expert_mapped(mesh.plan):
        return dense_sharing(mesh, sharded=True)
    shard, replicate = mesh.group("expert_shard"), mesh.group("expert_replicate")
    over = ("expert_replicate",) if replicate.size > 1 else ()
    return Sharing(shard, mesh.group("expert_shard" + GRADIENTS), over, replicate.size)


def _pieces(store: Store, name: str, shape: Experts) -> tuple[Piece, ...]:
    """[features, experts, hidden] of each matrix: features come first because shards are rows of these."""
    plan, mesh, hidden = store.settings.plan, store.mesh, store.settings.model.hidden
    tensor, expert = mesh.group("expert_tensor"), mesh.group("expert")
    parts = {0: (tensor.index, plan.expert_tensor), 1: (expert.index, plan.expert)}
    # without the mapping members of x use the same weights for different tokens
    copies = 1 if expert_mapped(plan) else plan.tensor_x
    matrices = ("gate", "up", "down") if shape.gated else ("up", "down")
    full = (shape.hidden, shape.num_experts, hidden)
    return tuple(
        Piece(split(f"{name}.{matrix}.weight", full, parts), copies=copies, partial=copies)
        for matrix in matrices
    )


def routed_experts(store: Store, shape: Experts, layer: int, *, keeps: int = 0) -> RoutedExperts:
    """The routed experts of a layer; `keeps` as in `Linear`."""
    settings, mesh = store.settings, store.mesh
    plan, model, sizes = settings.plan, settings.model, settings.sizes
    name = f"layer.{layer}.experts"
    full = (shape.num_experts, model.hidden)
    # each member of x routes tokens of its own
    whole = Piece(split(f"{name}.router.weight", full), copies=plan.tensor_x, partial=plan.tensor_x)
    unsharded = dense_sharing(mesh, sharded=False)
    spread = Initial("normal", DEVIATION)
    return RoutedExperts(
        name,
        shape,
        store.make(f"{name}.router", (whole,), spread, sharing=unsharded, layer=layer),
        store.make(name, _pieces(store, name, shape), spread, sharing=_sharing(mesh), layer=layer),
        mesh.group("tensor_x"),
        not sizes.sequence_split,
        mesh.group("context"),
        mesh.group("expert"),
        mesh.group("expert_tensor"),
        sizes.sequence,
        keeps,
    )
