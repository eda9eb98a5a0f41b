"""What a calibration measures: kernels at sizes, and collectives by size and members."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from towtank.kernels import passes
from towtank.kernels.counts import BYTES_PER_ELEMENT, adam_bytes_per_parameter, mean_keys
from towtank.kernels.passes import Passes
from towtank.simulator.cost.calibrated import (
    OTHER,
    attention_features,
    elementwise_features,
    matmul_features,
)
from towtank.simulator.operations import AttentionCore

Mode = Literal["quick", "full"]


@dataclass(frozen=True, slots=True)
class KernelPoint:
    """One kernel at one size, and the features that its time is fitted to."""

    kernel: str
    precision: str
    sizes: Mapping[str, int]
    features: Mapping[str, float]

    @property
    def key(self) -> str:
        """Name in the journal of a calibration."""
        return f"{self.kernel} {self.precision} {' '.join(f'{k}={v}' for k, v in self.sizes.items())}"


@dataclass(frozen=True, slots=True)
class CollectivePoint:
    """One collective of a size (whole array), among `size` members; groups of `processes` work side by side."""

    collective: str
    size: int
    processes: int
    message_bytes: int

    @property
    def key(self) -> str:
        """Name in the journal of a calibration."""
        return f"{self.collective} {self.size} of {self.processes} {self.message_bytes}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Sizes of one mode on one type of device."""

    layers: tuple[tuple[int, int, int], ...]
    """Tokens, inputs and outputs of linear layers."""
    attention: tuple[tuple[int, int, int, int, int], ...]
    """Batch, sequence, heads, key-value heads, head size."""
    rows: tuple[tuple[int, int], ...]
    """Rows and columns of memory-bound kernels."""
    message_bytes: tuple[int, ...]


_CPU_QUICK = Sweep(
    layers=(
        (32, 64, 64), (128, 128, 128), (512, 128, 384), (128, 256, 1024), (512, 256, 256), (1024, 256, 512),
        (256, 512, 1536), (512, 768, 512), (256, 1024, 256), (256, 256, 4096), (1024, 512, 1024),
    ),
    attention=((2, 64, 4, 4, 32), (2, 256, 4, 2, 32), (2, 256, 8, 8, 64), (1, 512, 8, 4, 32)),
    rows=((64, 128), (512, 256), (1024, 1024), (2048, 1024)),
    message_bytes=(4, 16384, 262144, 1048576, 8388608),
)  # fmt: skip
_CPU_FULL = Sweep(
    layers=tuple(product((32, 128, 512, 2048), (64, 256, 1024), (64, 256, 1024, 4096))),
    attention=tuple((b, s, h, h, d) for b, s, h, d in product((1, 4), (64, 256, 1024), (4, 8), (32, 64))),
    rows=((16, 64), (64, 128), (256, 256), (512, 512), (1024, 1024), (2048, 2048), (4096, 4096)),
    message_bytes=(4, 1024, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
)
_GPU_QUICK = Sweep(
    layers=tuple(product((512, 4096), (1024, 4096, 8192), (1024, 4096, 8192))),
    attention=((1, 1024, 16, 16, 128), (1, 4096, 32, 8, 128), (2, 2048, 16, 16, 64)),
    rows=((256, 1024), (4096, 4096), (8192, 8192)),
    message_bytes=(4, 16384, 262144, 4194304, 67108864, 536870912),
)
_GPU_FULL = Sweep(
    layers=tuple(
        product((128, 1024, 4096, 16384), (1024, 2048, 4096, 8192), (1024, 2048, 4096, 8192, 16384))
    ),
    attention=tuple((b, s, h, h, d) for b, s, h, d in product((1, 4), (1024, 4096), (16, 32), (64, 128))),
    rows=((64, 1024), (512, 2048), (2048, 4096), (4096, 8192), (16384, 8192)),
    message_bytes=tuple(4 * 4**power for power in range(14)),
)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast", "send")


def sweep_of(device_type: str, mode: Mode) -> Sweep:
    """Sizes to measure."""
    if device_type == "cpu":
        return _CPU_QUICK if mode == "quick" else _CPU_FULL
    return _GPU_QUICK if mode == "quick" else _GPU_FULL


def kernel_points(sweep: Sweep, precision: str, device_type: str = "cpu") -> list[KernelPoint]:
    """Every kernel of a sweep in one precision; on a CPU fewer and smaller ones in 16 bits, which it is slow at."""
    if device_type == "cpu" and BYTES_PER_ELEMENT[precision] < 4:
        sweep = replace(sweep, layers=sweep.layers[:3], attention=sweep.attention[:1], rows=sweep.rows[:2])
    return [*_matmuls(sweep, precision), *_attentions(sweep, precision), *_row_kernels(sweep, precision)]


def _matmuls(sweep: Sweep, precision: str) -> Iterator[KernelPoint]:
    element = BYTES_PER_ELEMENT[precision]
    for tokens, inputs, outputs in sweep.layers:
        shapes = {
            "forward": (tokens, outputs, inputs),
            "dgrad": (tokens, inputs, outputs),
            "wgrad": (outputs, inputs, tokens),
        }
        for role, (m, n, k) in shapes.items():
            sizes = {"m": m, "n": n, "k": k}
            yield KernelPoint(f"matmul.{role}", precision, sizes, matmul_features(m, n, k, 1, element))


def _attentions(sweep: Sweep, precision: str) -> Iterator[KernelPoint]:
    for batch, sequence, heads, kv_heads, head_dim in sweep.attention:
        for backward in (False, True):
            core = AttentionCore(
                batch,
                sequence,
                sequence,
                mean_keys(sequence, None, causal=True),
                heads,
                kv_heads,
                head_dim,
                head_dim,
                backward,
            )
            names = ("batch", "sequence", "heads", "kv_heads", "head_dim")
            sizes = dict(zip(names, (batch, sequence, heads, kv_heads, head_dim), strict=True))
            features = attention_features(core, BYTES_PER_ELEMENT[precision])
            yield KernelPoint(
                f"attention.{'backward' if backward else 'forward'}", precision, sizes, features
            )


ROW_KERNELS: Mapping[str, Passes] = {
    "norm": passes.RMS_NORM_FUSED,
    "activation": passes.ACTIVATION_UNFUSED,
    "gated": passes.GATED_UNFUSED,
    "residual": passes.RESIDUAL_FUSED,
    "rope": passes.ROPE_FUSED,
    "softmax": passes.SOFTMAX,
    "cross-entropy": passes.CROSS_ENTROPY_UNFUSED,
    "embedding": passes.EMBEDDING,
}
"""Memory-bound kernels in both passes, with the traffic that the Program counts for them."""


def _row_kernels(sweep: Sweep, precision: str) -> Iterator[KernelPoint]:
    element = BYTES_PER_ELEMENT[precision]
    for rows, columns in sweep.rows:
        sizes, elements = {"rows": rows, "columns": columns}, float(rows * columns)
        counted = [
            *((f"{name}.forward", kind.forward, kind.forward_launches) for name, kind in ROW_KERNELS.items()),
            *(
                (f"{name}.backward", kind.backward, kind.backward_launches)
                for name, kind in ROW_KERNELS.items()
            ),
            ("gradient-add.backward", 5, 1),
            (OTHER, 2, 1),
            ("optimizer", adam_bytes_per_parameter(4.0, 4.0, element) / element, 4),
            ("gradient-norm", 12.0 / element, 8),
        ]
        for name, count, launches in counted:
            features = elementwise_features(elements * count * element, launches)
            yield KernelPoint(name, precision, sizes, features)


def collective_points(sweep: Sweep, counts: tuple[int, ...]) -> list[CollectivePoint]:
    """Every collective among every number of members, alone on the node and with groups beside it."""
    layouts = [(size, all_of) for all_of in counts for size in counts if size > 1 and all_of % size == 0]
    return [
        CollectivePoint(collective, size, processes, num_bytes)
        for size, processes in layouts
        for collective in COLLECTIVES
        if not (collective == "send" and size > 2)
        for num_bytes in sweep.message_bytes
    ]
