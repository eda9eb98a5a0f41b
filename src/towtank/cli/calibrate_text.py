"""What `towtank calibrate` prints."""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median

from towtank.cli.text import emit, emit_json, table
from towtank.hardware_profiles.calibrated.records import Calibration, KernelFit


def print_calibration(calibration: Calibration, path: Path, as_json: bool) -> None:
    """Print where the calibration lies and how well its fits hold."""
    if as_json:
        emit_json({"path": str(path), **asdict(calibration)})
        return
    emit(f"{path}: {calibration.described}\n")
    kinds: dict[tuple[str, str, int], list[KernelFit]] = defaultdict(list)
    for fit in calibration.kernels:
        kinds[fit.kernel.partition(".")[0], fit.precision, fit.processes].append(fit)
    rows = [
        (
            kind,
            precision,
            str(processes),
            str(sum(fit.residual.samples for fit in fits)),
            f"{median(fit.residual.median for fit in fits):.1%}",
            f"{max(fit.residual.p90 for fit in fits):.1%}",
        )
        for (kind, precision, processes), fits in sorted(kinds.items())
    ]
    heads = ("kernel", "precision", "processes", "samples", "median error", "90 % below")
    emit(table(rows, heads, right=(2, 3, 4, 5)))
    emit(f"\nNow: towtank predict --machine {calibration.name} --stack towtank-executor --model tiny-llama "
         "--set global_batch=4,precision=fp32")  # fmt: skip
