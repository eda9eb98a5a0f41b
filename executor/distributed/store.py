"""The weights of a device: which boxes of which tensors, how they begin, and what they share."""

import math

import torch

from towtank.executor.distributed.boxes import Box, split
from towtank.executor.distributed.mesh import Mesh
from towtank.executor.distributed.pieces import Initial, Piece, Sharing, dense_sharing
from towtank.executor.distributed.scatters import Scatters
from towtank.executor.distributed.weights import Weight
from towtank.executor.settings import Dtype, RunSettings
from towtank.simulator.lowering.sizes import local_heads
from towtank.simulator.models.records import Attention

DEVIATION = 0.02
"""Standard deviation of initial weights (GPT-2); projections back to the hidden state: over sqrt(2 layers)."""

DTYPES: dict[Dtype, torch.dtype] = {
    "float64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Store:
    """Makes weights and keeps them in order of use."""

    def __init__(self, settings: RunSettings, mesh: Mesh) -> None:
        self.settings, self.mesh = settings, mesh
        self.weights: list[Weight] = []
        self.scatters = Scatters(
            asynchronous=bool(settings.sizes.overlap.reduce_scatter),
            most=settings.stack.communication.scatters_under_way,
        )
        self.x = (mesh.coordinate("tensor_x"), settings.plan.tensor_x)
        self.y = (mesh.coordinate("tensor_y"), settings.plan.tensor_y)

    def make(
        self,
        name: str,
        pieces: tuple[Piece, ...],
        initial: Initial,
        *,
        sharing: Sharing | None = None,
        layer: int = -1,
        decays: bool = True,
        tied: bool = False,
        used_first: bool = False,
    ) -> Weight:
        """Make a weight with its first values; `sharing` None: that of weights that every token uses."""
        sharing = sharing or dense_sharing(self.mesh, sharded=True, tied=tied)
        weight = Weight(
            name,
            pieces,
            sharing,
            self.scatters,
            layer=layer,
            decays=decays,
            tied=tied,
            used_first=used_first,
        )
        settings = self.settings
        kept = DTYPES[settings.gradient_dtype]
        weight.materialize(initial, settings.seed, DTYPES[settings.dtype], kept, self.mesh.device)
        self.weights.append(weight)
        return weight

    def vector(self, name: str, pieces: tuple[Piece, ...], value: float = 0.0, *, layer: int = -1) -> Weight:
        """A bias or the weight of a norm: whole on all shards, begins constant, does not decay."""
        sharing = dense_sharing(self.mesh, sharded=False)
        initial = Initial("constant", value)
        return self.make(name, pieces, initial, sharing=sharing, layer=layer, decays=False)

    @property
    def back_deviation(self) -> float:
        """Standard deviation of projections whose output is added to the hidden state."""
        return DEVIATION / math.sqrt(2 * self.settings.model.num_layers)

    # ---- pieces

    def normal(self, name: str, outputs: int, inputs: int) -> Piece:
        """Weight of a normal layer: outputs over x, inputs over y."""
        return Piece(split(f"{name}.weight", (outputs, inputs), {0: self.x, 1: self.y}))

    def transposed(self, name: str, outputs: int, inputs: int) -> Piece:
        """Weight of a transposed layer: outputs over y, inputs over x."""
        return Piece(split(f"{name}.weight", (outputs, inputs), {0: self.y, 1: self.x}))

    def normal_bias(self, name: str, outputs: int) -> Piece:
        """Bias of a normal layer."""
        return Piece(split(f"{name}.bias", (outputs,), {0: self.x}), copies=self.y[1])

    def transposed_bias(self, name: str, outputs: int) -> Piece:
        """Bias of a transposed layer."""
        return Piece(split(f"{name}.bias", (outputs,), {0: self.y}), copies=self.x[1])

    def feature_vector(self, name: str) -> Piece:
        """One number for each feature of the hidden state, for a norm that sees its tokens only."""
        partial = self.x[1] if self.settings.sizes.sequence_split else 1
        hidden = self.settings.model.hidden
        return Piece(split(name, (hidden,), {0: self.y}), copies=self.x[1], partial=partial)

    def head_vector(self, name: str, width: int) -> Piece:
        """One number for each feature of a head, for all heads."""
        return Piece(split(name, (width,)), copies=self.x[1] * self.y[1], partial=self.x[1])

    def positions(self) -> Piece:
        """Learned positions: features over y."""
        model = self.settings.model
        partial = self.x[1] if self.settings.sizes.sequence_split else 1
        box = split("model.positions.weight", (model.max_positions, model.hidden), {1: self.y})
        return Piece(box, copies=self.x[1], partial=partial)

    def vocabulary(self, name: str, columns: int | None) -> Piece:
        """Rows of a vocabulary table over x and y together; the last ones may have fewer. None: a vector."""
        group, vocab = self.mesh.group("tensor_xy"), self.settings.model.vocab
        each = -(-vocab // group.size)
        first = min(vocab, group.index * each)
        rows = min(vocab, first + each) - first
        if columns is None:
            return Piece(Box(name, (vocab,), (first,), (rows,)))
        return Piece(Box(name, (vocab, columns), (first, 0), (rows, columns)))

    def qkv(self, name: str, attention: Attention, inputs: int | None) -> tuple[Piece, ...]:
        """Queries, keys and values over x; `inputs` None: their biases.

        Where there are fewer heads of keys than members of x, neighbours share one.
        """
        heads, kv_heads = local_heads(attention, self.x[1])
        sharers = self.x[1] * kv_heads // attention.kv_heads
        return tuple(
            self._head_rows(f"{name}.{part}", number * attention.head_dim, inputs, shared)
            for part, number, shared in (
                ("query", attention.heads, 1),
                ("key", attention.kv_heads, sharers),
                ("value", attention.kv_heads, sharers),
            )
            if heads
        )

    def _head_rows(self, name: str, outputs: int, inputs: int | None, sharers: int) -> Piece:
        rows = (self.x[0] // sharers, self.x[1] // sharers)
        if inputs is None:
            box = split(f"{name}.bias", (outputs,), {0: rows})
            return Piece(box, copies=self.y[1] * sharers, partial=sharers)
        box = split(f"{name}.weight", (outputs, inputs), {0: rows, 1: self.y})
        return Piece(box, copies=sharers, partial=sharers)
