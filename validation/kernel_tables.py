"""The measured curves of devices on kernel shapes left out of them."""

from collections.abc import Sequence

from towtank.hardware_profiles.curves.left_out import KernelErrors, errors_by_group, sample
from towtank.validation.figures import Figure, figure_of

HEADING = "Kernel tables, shapes left out of the fit"
NOTE = (
    "Times of single kernels and collectives that the curves give, on a sample of measured shapes that no curve has "
    "seen: a fifth of the (n, k) pairs, of the head layouts, of the expert layouts and of the collectives."
)

NOT_JUDGED = (
    "Not judged: attention runs in which over 1 % of the rows beat the device's peak (of b200 sglang/0.5.10, of "
    "h200-141gb bf16 vllm/0.19.0, of l40s bf16 sglang/0.5.12); expert-parallel layers of a100-80gb-sxm, whose kernel "
    "computed all experts; collectives of l40s, measured over PCIe without peer access."
)

_MEASURES = {
    "kernels_matmul_median": ("matmul", "median"),
    "kernels_matmul_p90": ("matmul", "p90"),
    "kernels_attention_median": ("attention", "median"),
    "kernels_collectives_median": ("collectives", "median"),
    "kernels_experts_median": ("experts", "median"),
}


def kernel_errors() -> tuple[KernelErrors, ...]:
    """Errors on the shipped sample, by kind, device and precision."""
    return tuple(errors_by_group(sample()))


def kernel_figures(groups: Sequence[KernelErrors]) -> list[Figure]:
    """The worst device and precision of each kind; no value without groups of the kind."""
    found = []
    for key, (kind, measure) in _MEASURES.items():
        own = [group for group in groups if group.kind == kind]
        value = max((getattr(group, measure) for group in own), default=None)
        found.append(figure_of(key, value, sum(group.rows for group in own)))
    return found
