"""Boxes: where a part of a logical tensor lies in it. Weights, gradients and optimizer states at rest are boxes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangular part of the full tensor of a name."""

    name: str
    """Of the full tensor, such as layer.3.attention.query.weight: the same in every plan."""
    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index of the full tensor."""
        return tuple(
            slice(start, start + length) for start, length in zip(self.offset, self.size, strict=True)
        )

    def rows(self, first: int, end: int) -> "Box":
        """Rows `first` to `end` of this box, counted from its own first row."""
        return Box(
            self.name,
            self.full_shape,
            (self.offset[0] + first, *self.offset[1:]),
            (end - first, *self.size[1:]),
        )


def split(name: str, full_shape: tuple[int, ...], parts: dict[int, tuple[int, int]] | None = None) -> Box:
    """Box of part `index` of `number` equal ones along each dimension in `parts`; whole along the others."""
    offset, size = [0] * len(full_shape), list(full_shape)
    for dimension, (index, number) in (parts or {}).items():
        size[dimension] = full_shape[dimension] // number
        offset[dimension] = index * size[dimension]
    return Box(name, full_shape, tuple(offset), tuple(size))
