"""References of backward passes: autograd of the forward reference."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from towtank.kernels.records import Sizes

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]
    Reference = Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]


def gradients_of(forward: "Reference", wanted: Sequence[int]) -> "Reference":
    """Reference of a backward kernel whose inputs are the gradient of the first output and the forward's inputs.

    Its outputs are the gradients of the forward's inputs `wanted`, in that order.
    """

    def backward(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
        import torch

        gradient, *given = inputs
        with torch.enable_grad():
            leaves = [each.detach().requires_grad_(place in wanted) for place, each in enumerate(given)]
            output = forward(leaves, sizes)[0]
            return torch.autograd.grad(output, [leaves[place] for place in wanted], gradient)

    return backward
