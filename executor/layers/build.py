"""The parts of a model on one device, made from settings: which weights, which linear layers, which names."""

from collections.abc import Callable

import torch

from towtank.executor.distributed.grid import Grid, grid_of
from towtank.executor.distributed.mesh import Mesh
from towtank.executor.distributed.pieces import Initial, Piece, dense_sharing
from towtank.executor.distributed.store import DEVIATION, DTYPES, Store
from towtank.executor.distributed.weights import Weight
from towtank.executor.layers.attention import Attend, SelfAttention, local_attention
from towtank.executor.layers.attention_core import Core
from towtank.executor.layers.blocks import Layer, ParallelLayer, Part
from towtank.executor.layers.context.attention import context_attention
from towtank.executor.layers.context.split import local_positions
from towtank.executor.layers.dropout import Dropout
from towtank.executor.layers.embedding import Embedding, Head, Layout
from towtank.executor.layers.experts.layer import ExpertsPart
from towtank.executor.layers.experts.weights import routed_experts
from towtank.executor.layers.feed_forward import FeedForward
from towtank.executor.layers.linear import Gathers, Linear, ParallelInput, ParallelOutput
from towtank.executor.layers.norms import Norm
from towtank.executor.layers.rotary import Angles, angles
from towtank.executor.settings import RunSettings
from towtank.simulator.lowering.sizes import local_heads
from towtank.simulator.lowering.stages import is_recomputed
from towtank.simulator.models.layers import is_expert_layer, layer_window
from towtank.simulator.models.records import Attention, Mlp


class Builder:
    """Makes the parts of one device's model. Linear layers are kept in order of use, for prefetches."""

    def __init__(self, settings: RunSettings, mesh: Mesh) -> None:
        self.settings, self.mesh = settings, mesh
        self.store = Store(settings, mesh)
        self.grid: Grid = grid_of(settings, mesh)
        plan = settings.plan
        context = mesh.group("context")
        self.positions = local_positions(
            settings.sizes.sequence, context.size, context.index, plan.context_kind
        ).to(mesh.device)
        """Global positions of the tokens of a sequence on this device."""
        self.linears: list[Gathers] = []
        """Of the layer under construction."""
        self._angles = self._rotary_angles()
        self.dropout = Dropout(settings, self.grid) if settings.dropout else None
        self._table: Weight | None = None

    def _rotary_angles(self) -> Angles | None:
        model = self.settings.model
        if model.positions != "rope" or not isinstance(model.attention, Attention):
            return None
        return angles(self.positions, model.attention.head_dim, DTYPES[self.settings.dtype])

    # ---- layers

    def keeps(self, layer: int) -> int:
        """How often weights of a layer are still gathered when its backward pass comes."""
        plan = self.settings.plan
        recomputed = is_recomputed(plan, layer)
        return recomputed + (recomputed and layer < plan.cached_layers)

    def linear(
        self,
        name: str,
        layer: int,
        pieces: tuple[Piece, ...],
        biases: tuple[Piece, ...],
        *,
        deviation: float = DEVIATION,
        transposed: bool = False,
        reduce_forward: bool = True,
        reduce_backward: bool = True,
    ) -> Linear:
        """A linear layer with its weights."""
        weight = self.store.make(name, pieces, Initial("normal", deviation), layer=layer)
        bias = self.store.vector(f"{name}.bias", biases, layer=layer) if biases else None
        made = Linear(
            name,
            weight,
            self.grid,
            bias=bias,
            transposed=transposed,
            reduce_forward=reduce_forward,
            reduce_backward=reduce_backward,
            keeps=self.keeps(layer),
        )
        self.linears.append(made)
        return made

    def norm(self, name: str, layer: int = -1, residual: str = "", *, used_first: bool = False) -> Norm:
        """A norm of the hidden state; `used_first`: before the first layer."""
        model, store = self.settings.model, self.store
        weight = store.vector(name, (store.feature_vector(f"{name}.weight"),), 1.0, layer=layer)
        bias = None
        if model.norm_bias:
            bias = store.vector(f"{name}.bias", (store.feature_vector(f"{name}.bias"),), layer=layer)
        for one in (weight, bias):
            if one is not None:
                one.used_first = used_first
        return Norm(name, weight, bias, self.grid.y, centred=model.norm == "layernorm", residual=residual)

    def _head_norm(self, name: str, part: str, layer: int, head_dim: int) -> Norm:
        model, store, full = self.settings.model, self.store, f"{name}.{part}"
        weight = store.vector(full, (store.head_vector(f"{full}.weight", head_dim),), 1.0, layer=layer)
        bias = None
        if model.norm_bias:
            bias = store.vector(f"{full}.bias", (store.head_vector(f"{full}.bias", head_dim),), layer=layer)
        alone = dense_sharing(self.mesh, sharded=False).shard
        return Norm(f"{name}.qk-norm", weight, bias, alone, centred=model.norm == "layernorm")

    def attention(self, layer: int) -> SelfAttention:
        """Attention of a layer."""
        model, store, name = self.settings.model, self.store, f"layer.{layer}.attention"
        attention = model.attention
        assert isinstance(attention, Attention)
        width = attention.heads * attention.head_dim
        shares = model.parallel_block and model.norms_per_layer == 1
        qkv = self.linear(
            f"{name}.qkv",
            layer,
            store.qkv(name, attention, model.hidden),
            store.qkv(name, attention, None) if attention.qkv_bias else (),
            reduce_backward=not shares,
        )
        output = self.linear(
            f"{name}.output",
            layer,
            (store.transposed(f"{name}.output", model.hidden, width),),
            (store.transposed_bias(f"{name}.output", model.hidden),) if attention.output_bias else (),
            deviation=store.back_deviation,
            transposed=True,
            reduce_forward=not model.parallel_block,
        )
        heads, kv_heads = local_heads(attention, self.settings.plan.tensor_x)
        made = SelfAttention(
            name, qkv, output, heads, kv_heads, attention.head_dim, self.attend(layer), self._angles
        )
        if attention.qk_norm:
            made.query_norm = self._head_norm(name, "query-norm", layer, attention.head_dim)
            made.key_norm = self._head_norm(name, "key-norm", layer, attention.head_dim)
        return made

    def attend(self, layer: int) -> Attend:
        """Core of a layer's attention, over the context group where there is one."""
        plan, name = self.settings.plan, f"layer.{layer}.attention.core"
        window = layer_window(self.settings.model, layer)
        core = Core(name, window, repeats=plan.recompute == "selective")
        if plan.context == 1:
            return local_attention(core)
        return context_attention(self.settings, self.mesh, layer, core)

    def feed_forward(self, layer: int, name: str, mlp: Mlp) -> FeedForward:
        """Dense feed-forward part."""
        model, store, full = self.settings.model, self.store, f"layer.{layer}.{name}"
        hidden, biased = mlp.hidden, mlp.bias
        parts = (f"{full}.gate", f"{full}.up") if mlp.gated else (f"{full}.up",)
        shares = model.parallel_block and model.norms_per_layer == 1
        up = self.linear(
            f"{full}.up",
            layer,
            tuple(store.normal(part, hidden, model.hidden) for part in parts),
            tuple(store.normal_bias(part, hidden) for part in parts) if biased else (),
            reduce_backward=not shares,
        )
        down = self.linear(
            f"{full}.down",
            layer,
            (store.transposed(f"{full}.down", model.hidden, hidden),),
            (store.transposed_bias(f"{full}.down", model.hidden),) if biased else (),
            deviation=store.back_deviation,
            transposed=True,
            reduce_forward=not model.parallel_block,
        )
        return FeedForward(full, up, down, gated=mlp.gated)

    def _second_part(self, layer: int) -> Part:
        if not is_expert_layer(self.settings.model, layer):
            return self.feed_forward(layer, "mlp", self.settings.model.mlp)
        return self._experts(layer)

    def _experts(self, layer: int) -> ExpertsPart:
        """Routed experts, and shared ones where the model has them."""
        shape, name = self.settings.model.experts, f"layer.{layer}"
        assert shape is not None
        routed = routed_experts(self.store, shape, layer, keeps=self.keeps(layer))
        self.linears.append(routed)
        if not shape.shared_hidden:
            return ExpertsPart(name, routed)
        mlp = Mlp(shape.shared_hidden, shape.gated)
        gate = None
        if shape.shared_gate:
            gate_name = f"{name}.shared.token-gate"
            gate = self.store.vector(
                gate_name, (self.store.feature_vector(f"{gate_name}.weight"),), layer=layer
            )
        return ExpertsPart(name, routed, self.feed_forward(layer, "shared", mlp), gate)

    def layer(self, layer: int) -> Callable[..., torch.Tensor]:
        """One layer; linear layers of it are in `linears`, in order of use."""
        self.linears = []
        model, name = self.settings.model, f"layer.{layer}"
        first = self.norm(f"{name}.attention.norm", layer, f"{name}.attention.residual")
        attention = self.attention(layer)
        second = None
        if model.norms_per_layer > 1:
            second = self.norm(f"{name}.mlp.norm", layer, f"{name}.mlp.residual")
        part = self._second_part(layer)
        if model.parallel_block:
            shared = ParallelInput(f"{name}.attention.qkv", self.grid)
            total = ParallelOutput(f"{name}.mlp.down", self.grid)
            return ParallelLayer(layer, first, attention, part, second, shared, total, self.dropout)
        assert second is not None
        post = tuple(
            self.norm(f"{name}.post.{extra}.norm", layer) for extra in range(model.norms_per_layer - 2)
        )
        return Layer(layer, first, attention, part, second, self.dropout, post)

    # ---- ends

    def _vocabulary_table(self, name: str, *, first: bool) -> Weight:
        """The token table, or that of the head; one weight where they are tied on one stage."""
        model, plan = self.settings.model, self.settings.plan
        tied = model.tied_embeddings
        if tied and self._table is not None and plan.pipeline == 1:
            return self._table
        logical = "model.embedding.weight" if tied else f"{name}.weight"
        piece = self.store.vocabulary(logical, model.hidden)
        self._table = self.store.make(
            name, (piece,), Initial("normal", DEVIATION), tied=tied and plan.pipeline > 1, used_first=first
        )
        return self._table

    def embedding(self) -> Embedding:
        """The embedding."""
        table = self._vocabulary_table("model.embedding", first=True)
        positions = None
        if self.settings.model.positions == "learned":
            positions = self.store.make(
                "model.embedding.positions",
                (self.store.positions(),),
                Initial("normal", DEVIATION),
                used_first=True,
            )
        return Embedding(table, positions, self.grid, Layout(self.grid, self.mesh))

    def head(self) -> Head:
        """The head; its logits are those of the local part of the vocabulary."""
        table = self._vocabulary_table("model.head", first=False)
        bias = None
        if self.settings.model.head_bias:
            bias = self.store.vector("model.head.bias", (self.store.vocabulary("model.head.bias", None),))
        return Head(table, bias, Layout(self.grid, self.mesh))
