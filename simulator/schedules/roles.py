"""The tasks of one training step of a pipeline: what each is for, beside the graph that orders them."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.graph import GraphStructure


class Role(IntEnum):
    """What a task does."""

    FORWARD = 0
    BACKWARD = 1
    SEND_FORWARD = 2
    """Activations to the next virtual stage; `stage` and `chunk` are the sender's."""
    SEND_BACKWARD = 3
    """Gradients of activations to the previous virtual stage; `stage` and `chunk` are the sender's."""
    PARAMETER_GATHER = 4
    """Parameters of one layer gathered before its first forward pass."""
    GRADIENT_REDUCE = 5
    """Gradients of one layer (or of the whole stage: chunk and layer -1) reduced after its last backward
    pass."""
    GRADIENT_NORM = 6
    """Norm of all gradients, for clipping: waits for the gradients of every stage."""
    OPTIMIZER = 7
    PARAMETER_GATHER_AFTER = 8
    """Updated parameters gathered after the optimizer."""


class StreamKind(IntEnum):
    """Streams of a stage; stream number = kind * stages + stage."""

    COMPUTE = 0
    SEND_FORWARD = 1
    SEND_BACKWARD = 2
    DATA = 3
    """Collectives of the data-parallel group."""


@dataclass(frozen=True, slots=True, eq=False)
class PipelineStructure:
    """Graph of one step with what each task is; arrays [tasks], -1 where a task has no such property.

    `layer` counts from the first layer of the chunk where a pass is unrolled into layers, else it is -1 and
    the task stands for the whole chunk. `device` of the graph is the stage.
    """

    structure: GraphStructure
    role: NDArray[np.int8]
    stage: NDArray[np.int32]
    chunk: NDArray[np.int16]
    micro_batch: NDArray[np.int32]
    layer: NDArray[np.int16]
    num_stages: int
    num_chunks: int
    num_micro_batches: int

    def describe(self, task: int) -> str:
        """Name of a task for people, such as `forward stage 1 chunk 0 micro-batch 3`."""
        words = [Role(int(self.role[task])).name.lower().replace("_", "-"), f"stage {self.stage[task]}"]
        for name, values in (("chunk", self.chunk), ("micro-batch", self.micro_batch), ("layer", self.layer)):
            if values[task] >= 0:
                words.append(f"{name} {values[task]}")
        return " ".join(words)
