"""What a record says of a machine, and what it must not say."""

import getpass
import platform
from dataclasses import asdict
from pathlib import Path

import pytest

from towtank.executor.measured import machine_facts, memory


def test_a_machine_is_described_without_its_name() -> None:
    facts = machine_facts.machine_facts()
    text = repr(asdict(facts)) + repr(machine_facts.versions())
    assert facts.cores >= 1 and facts.memory_bytes > 2**28 and facts.processor
    assert len(facts.fingerprint) == 16
    assert platform.node() not in text or len(platform.node()) < 3
    assert machine_facts.boot() not in text
    assert f"'{getpass.getuser()}'" not in text
    assert machine_facts.machine_facts() == facts


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the proc file system of Linux")
def test_peak_memory_is_what_the_process_holds_above_its_start() -> None:
    import torch

    peak = memory.PeakMemory("cpu")
    before = peak.peak_bytes()
    held = torch.ones(8 * 2**20)  # 32 MiB, written
    assert before is not None and before < 8 * 2**20
    most = peak.peak_bytes()
    del held
    assert most is not None
    assert 30 * 2**20 < most < 48 * 2**20
    after = peak.peak_bytes()
    assert after is not None and after > most - 2**20  # a peak stays; the kernel counts in lumps
