"""Parts of logical tensors for torch.distributed.checkpoint: each rank writes and reads its boxes.

A checkpoint holds whole logical tensors, as boxes that somebody had when it was written. Reading asks for other boxes
of the same tensors, so a checkpoint resumes under any plan. Boxes that several ranks hold are written once, by the
rank with the least to write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from towtank.executor.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from towtank.executor.distributed.boxes import Box


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What this rank holds of a logical tensor."""

    name: str
    """Of the logical tensor: the same in every plan."""
    box: "Box"
    tensor: "torch.Tensor"
    """Of the shape of the box; written from and read into."""


def _chunk(part: Part) -> ChunkStorageMetadata:
    import torch

    return ChunkStorageMetadata(torch.Size(part.box.offset), torch.Size(part.box.size))


class _Parts:
    """Parts by name and offset."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.all = [part for part in parts if part.tensor.numel()]
        self._by_index = {(part.name, tuple(part.box.offset)): part for part in self.all}

    def find(self, index: MetadataIndex) -> "torch.Tensor":
        """Tensor of a part that a plan names."""
        return self._by_index[index.fqn, tuple(index.offset or ())].tensor


class SaveParts(DefaultSavePlanner):
    """Writes the parts of this rank."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._parts = _Parts(parts)

    def set_up_planner(
        self, state_dict: Any, storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        """Nothing comes from a state dict."""
        super().set_up_planner({}, storage_meta, is_coordinator)

    def create_local_plan(self) -> SavePlan:
        """One item a part."""
        self.plan = SavePlan([_write_item(part) for part in self._parts.all])
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Any:
        """Tensor of one item."""
        return self._parts.find(index).detach()


def _write_item(part: Part) -> WriteItem:
    import torch

    chunk = _chunk(part)
    properties = TensorProperties.create_from_tensor(part.tensor)
    # sharded and replicated states of the same tensor must describe themselves alike
    properties.requires_grad = False
    data = TensorWriteData(chunk, properties, torch.Size(part.box.full_shape))
    return WriteItem(MetadataIndex(part.name, chunk.offsets), WriteItemType.SHARD, tensor_data=data)


class LoadParts(DefaultLoadPlanner):
    """Reads the parts of this rank, in the precision of their tensors."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._parts = _Parts(parts)

    def set_up_planner(
        self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Nothing goes to a state dict."""
        super().set_up_planner({}, metadata, is_coordinator)

    def create_local_plan(self) -> LoadPlan:
        """Saved boxes that meet a part, for each part; CheckpointError with every tensor that does not fit."""
        saved = self.metadata.state_dict_metadata if self.metadata else {}
        faults = parts_faults(self._parts.all, saved)
        if faults:
            raise CheckpointError("; ".join(faults))
        items: list[ReadItem] = []
        for part in self._parts.all:
            found = saved[part.name]
            assert isinstance(found, TensorStorageMetadata)
            items += create_read_items_for_chunk_list(part.name, found, [_chunk(part)])
        return LoadPlan(items)

    def lookup_tensor(self, index: MetadataIndex) -> "torch.Tensor":
        """Tensor of one item."""
        return self._parts.find(index).detach()


def parts_faults(parts: Sequence[Part], saved: Any) -> list[str]:
    """Tensors of the model that a checkpoint has not, or has in another shape; empty if all fit."""
    faults = []
    for part in parts:
        found = saved.get(part.name)
        if not isinstance(found, TensorStorageMetadata):
            faults.append(f"the checkpoint has no tensor {part.name}; it is of another model")
        elif tuple(found.size) != tuple(part.box.full_shape):
            faults.append(
                f"{part.name} has shape {tuple(found.size)} in the checkpoint and {tuple(part.box.full_shape)} "
                f"in this model"
            )
    return sorted(set(faults))
