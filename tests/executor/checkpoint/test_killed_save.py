"""Kill -9 in the middle of writing: what `latest` finds is whole, whenever it came."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from towtank.executor.checkpoint.folder import latest, load, read_progress
from towtank.executor.checkpoint.parts import Part
from towtank.executor.distributed.boxes import Box

pytestmark = pytest.mark.slow

WRITER = """
import sys
from pathlib import Path
import torch
from towtank.executor.distributed.boxes import Box
from towtank.executor.checkpoint.folder import Progress, save
from towtank.executor.checkpoint.parts import Part

torch.set_num_threads(1)
step = int(sys.argv[2])
while True:
    step += 1
    box = Box("a", (512, 512), (0, 0), (512, 512))
    progress = Progress(step, step, step, 0, "data", "model")
    save(Path(sys.argv[1]), progress, [Part("a", box, torch.full((512, 512), float(step)))], keep=2)
    print(step, flush=True)
"""


def test_what_is_found_is_whole(tmp_path: Path) -> None:
    random.seed(11)
    last = 0
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(last)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = int(writer.stdout.readline())  # it is writing the next one now
            time.sleep(random.uniform(0.0, 0.3))
            writer.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in writer.stdout.read().split())])
        path = latest(tmp_path)
        assert path is not None
        last = read_progress(path).step
        assert last >= told
        found = torch.zeros(512, 512)
        load(path, [Part("a", Box("a", (512, 512), (0, 0), (512, 512)), found)])
        assert bool((found == float(last)).all())
