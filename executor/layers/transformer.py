"""The layers of one pipeline chunk on one device."""

from collections.abc import Callable
from itertools import pairwise

import torch

from towtank.executor.distributed.buckets import FIRST, LAST
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.build import Builder
from towtank.executor.layers.embedding import Embedding, Head
from towtank.executor.layers.linear import Gathers
from towtank.executor.layers.loss import cross_entropy
from towtank.executor.layers.norms import Norm
from towtank.executor.layers.recompute import run_again, when_finished
from towtank.simulator.lowering.stages import Chunk as Layers
from towtank.simulator.lowering.stages import is_recomputed
from towtank.simulator.operations import Phase


class Chunk:
    """Consecutive layers, with the embedding before the first and the head after the last one of the model."""

    def __init__(self, builder: Builder, layers: Layers) -> None:
        """Make the layers.

        Args:
            builder: makes the weights, which it keeps in `builder.store`.
            layers: which ones, as the simulator deals them out (`lowering.stages.chunks_of`).
        """
        settings = builder.settings
        self.layers = layers
        self.layer_finished: Callable[[int], None] = lambda layer: None
        """Called in the backward pass when it has come through a layer."""
        self.about_to_use: Callable[[int], None] = lambda place: None
        """Called in the forward pass before the weights of a layer are used, or those of FIRST or LAST."""
        self._first, self._count = layers.first_layer, layers.num_layers
        self._plan, self._overlaps_gather = settings.plan, builder.grid.overlap_gather
        self._dropout = builder.dropout
        self._embedding: Embedding | None = builder.embedding() if layers.has_embedding else None
        self._embedding_norm: Norm | None = None
        if layers.has_embedding and settings.model.embedding_norm:
            self._embedding_norm = builder.norm("model.embedding.norm", used_first=True)
        self._layers: list[Callable[..., torch.Tensor]] = []
        linears: list[list[Gathers]] = []
        for index in range(self._first, self._first + self._count):
            self._layers.append(builder.layer(index))
            linears.append(builder.linears)
        self._final_norm: Norm | None = None
        self._head: Head | None = None
        if layers.has_head:
            self._final_norm = builder.norm("model.final-norm") if settings.model.final_norm else None
            self._head = builder.head()
        self._vocabulary = builder.grid.xy
        self._reports = builder.mesh.group("world").size > 1
        self._anchor = torch.zeros((), device=builder.mesh.device, requires_grad=True)
        self._first_linear = linears[0][0] if linears and linears[0] else None
        if self._overlaps_gather:
            self._link(linears)

    def _link(self, linears: list[list[Gathers]]) -> None:
        """Tell each linear layer whose weight is gathered ahead (OAG): the next one's in each kind of pass."""
        flat = [(layer, linear) for layer, members in enumerate(linears) for linear in members]
        for (layer, linear), (next_layer, following) in pairwise(flat):
            linear.then_forward = following
            if layer == next_layer:
                linear.then_recompute = following
            if not is_recomputed(self._plan, self._first + layer):
                # a recomputed layer's weights are there when its backward pass comes
                following.then_backward = linear

    def __call__(self, hidden: torch.Tensor | None, batch: MicroBatch) -> torch.Tensor:
        """One micro-batch's forward pass.

        Args:
            hidden: state before the first layer, [tokens, local features]; None where the model begins.
            batch: the micro-batch.

        Returns:
            The hidden state after the last layer, or, where the model ends, the sum of the losses of the tokens that
            count (the same on all devices of x and y).
        """
        hidden = self._hidden(hidden, batch)
        if self._head is None:
            return hidden
        logits = self._logits(self._head, hidden)
        first = self._head.table.pieces[0].box.offset[0]
        return cross_entropy(logits, batch.targets, self._vocabulary, first)

    def _hidden(self, hidden: torch.Tensor | None, batch: MicroBatch) -> torch.Tensor:
        """The hidden state after the last layer."""
        if self._embedding is not None:
            self.about_to_use(FIRST)
        if self._overlaps_gather and self._first_linear is not None:
            self._first_linear.prefetch(Phase.FORWARD)
        if self._embedding is not None:
            hidden = self._embedding(self._anchor, batch)
            if self._embedding_norm is not None:
                hidden = self._embedding_norm(hidden)
            if self._dropout is not None:
                hidden = self._dropout(hidden, batch, "model.embedding.dropout")
        assert hidden is not None
        for index, layer in enumerate(self._layers, self._first):
            hidden = self._run(layer, index, hidden, batch)
        return hidden

    def _logits(self, head: Head, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [tokens, local vocabulary] of the state after the last layer."""
        self.about_to_use(LAST)
        if self._final_norm is not None:
            hidden = self._final_norm(hidden)
        return head(hidden)

    @torch.no_grad()
    def logits(self, batch: MicroBatch) -> torch.Tensor:
        """Logits [tokens, local vocabulary] of a chunk that is the whole model; nothing is kept for a backward pass.

        Raises:
            ValueError: the chunk lacks the embedding or the head.
        """
        if self._embedding is None or self._head is None:
            raise ValueError(f"{self.layers} is not the whole model: it has no logits of tokens")
        return self._logits(self._head, self._hidden(None, batch))

    def _run(
        self, layer: Callable[..., torch.Tensor], index: int, hidden: torch.Tensor, batch: MicroBatch
    ) -> torch.Tensor:
        self.about_to_use(index)
        if self._reports:
            hidden = when_finished(hidden, lambda: self.layer_finished(index))
        if is_recomputed(self._plan, index):
            return run_again(lambda state: layer(state, batch), hidden)
        return layer(hidden, batch)
