"""Triton's kernels compile for GPUs of both makers, on a machine that has none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "architecture"), [("cuda", "90"), ("cuda", "89"), ("hip", "gfx942"), ("hip", "gfx90a")]
)
def test_every_kernel_compiles(backend: str, architecture: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    del environment["TRITON_INTERPRET"]  # which the other tests set
    script = Path(__file__).with_name("compile_for_gpu.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), backend, architecture],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"of 20 kernels compiled for {backend} {architecture}" in done.stdout
