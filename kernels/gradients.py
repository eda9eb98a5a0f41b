"""Backward passes by autograd: of a reference, and of what PyTorch offers forward only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towtank.kernels.records import Allocate, Sizes, Tile

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]
    Reference = Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]


def gradients_of(forward: "Reference", wanted: Sequence[int], given: int | None = None) -> "Reference":
    """Reference of a backward kernel whose inputs are the gradient of the first output and the forward's inputs.

    Its outputs are the gradients of the forward's inputs `wanted`, in that order. The forward has `given` inputs;
    what a backward kernel gets beyond them, such as results that were kept, is not used.
    """

    def backward(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
        import torch

        gradient, *rest = inputs
        with torch.enable_grad():
            leaves = [
                each.detach().requires_grad_(place in wanted) for place, each in enumerate(rest[:given])
            ]
            output = forward(leaves, sizes)[0]
            return torch.autograd.grad(output, [leaves[place] for place in wanted], gradient)

    return backward


@dataclass(frozen=True, slots=True)
class ThroughAutograd:
    """Launcher of a backward pass that PyTorch offers as the gradient of a forward operation only.

    A call runs the forward operation first; `prepared` does that once, so that the backward pass can be timed alone.
    """

    forward: "Callable[[Tensors, Sizes], torch.Tensor]"
    given: int | None = None
    """Inputs of the forward operation, where the backward kernel gets more."""

    def __call__(
        self, inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
    ) -> "tuple[torch.Tensor, ...]":
        """Gradients of all inputs of the forward operation."""
        return self.prepared(inputs, sizes)()

    def prepared(self, inputs: "Tensors", sizes: Sizes) -> "Callable[[], tuple[torch.Tensor, ...]]":
        """The backward pass alone, after a forward pass; it can be called again and again."""
        import torch

        gradient, *rest = inputs
        leaves = [each.detach().requires_grad_() for each in rest[: self.given]]
        with torch.enable_grad():
            output = self.forward(leaves, sizes)
        return lambda: torch.autograd.grad(output, leaves, gradient, retain_graph=True)
