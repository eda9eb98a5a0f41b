from dataclasses import replace
from pathlib import Path

import pytest
from tests.hardware_profiles.calibrated.examples import calibration

from towtank.hardware_profiles.calibrated import local
from towtank.hardware_profiles.calibrated.here import Here, first_link, here
from towtank.hardware_profiles.calibrated.read import ENVIRONMENT, write_calibration
from towtank.hardware_profiles.errors import ProfileError, UnknownProfile
from towtank.hardware_profiles.load import load_machine

CPU = Here("Test Processor", 2, 16 * 2.0**30, 2.0**25, (), None, None)
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    return tmp_path


def test_this_machine_has_cores_and_memory() -> None:
    found = here()
    assert found.cores >= 1
    assert found.memory_bytes > 2**28
    assert found.processor


def test_a_cpu_without_calibration_says_how_to_make_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "here", lambda: CPU)
    with pytest.raises(ProfileError, match=r"2 cores, 16 GiB.*run `towtank calibrate --quick`"):
        load_machine("local")


def test_local_is_the_calibrated_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "here", lambda: CPU)
    write_calibration(folder / "local.yaml", calibration("local"), "")
    machine = load_machine("Local ")
    assert machine.calibration == calibration("local")
    assert (machine.node.devices, machine.num_devices) == (4, 4)
    # a quarter of 16 GiB, which four processes share
    assert machine.device.memory_capacity_bytes == 4 * 2.0**30
    assert machine.device.peak_flop_per_s == {"fp32": pytest.approx(1e11)}
    assert machine.device.takes_turns


def test_local_must_be_of_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "here", lambda: replace(CPU, processor="Other", cores=8, memory_bytes=2.0**30))
    write_calibration(folder / "local.yaml", calibration("local"), "")
    with pytest.raises(ProfileError, match="another machine") as caught:
        load_machine("local")
    assert all(word in str(caught.value) for word in ("Other here", "2 cores there, 8 here", "1.0 GiB here"))


def test_a_calibration_may_be_carried_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "here", lambda: replace(CPU, cores=64))
    write_calibration(folder / "lab.yaml", calibration("lab"), "")
    assert load_machine("lab").calibration == calibration("lab")


def test_shipped_machines_come_first(folder: Path) -> None:
    write_calibration(folder / "frontier.yaml", calibration("frontier"), "")
    assert load_machine("frontier").calibration is None


@pytest.mark.parametrize("name", ["no-such-machine", "../secret", "a\0b", ""])
def test_other_names_are_unknown(folder: Path, name: str) -> None:
    with pytest.raises(UnknownProfile):
        load_machine(name)


def test_gpus_of_known_specification_need_no_calibration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        local, "here", lambda: replace(CPU, gpus=(H100,) * 4, gpu_memory_bytes=8e10, links="NV18")
    )
    machine = load_machine("local")
    assert (machine.device.name, machine.node.devices, machine.num_nodes) == ("h100-80gb-sxm", 4, 1)
    assert machine.node.device_bandwidth_bytes_per_s == 450e9


@pytest.mark.parametrize(
    ("gpus", "links", "words"),
    [
        ((H100,) * 2, "SYS", "joined by SYS"),
        ((H100,) * 2, None, "joined by unknown links"),
        (("Strange GPU",), None, "1 GPU\\(s\\) Strange GPU, whose"),
        ((H100, "NVIDIA H200"), "NV18", "NVIDIA H100 80GB HBM3, NVIDIA H200"),
    ],
)
def test_unknown_gpus_and_links_ask_for_a_calibration(
    folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: tuple[str, ...], links: str | None, words: str
) -> None:
    monkeypatch.setattr(local, "here", lambda: replace(CPU, gpus=gpus, gpu_memory_bytes=8e10, links=links))
    with pytest.raises(ProfileError, match=words) as caught:
        load_machine("local")
    assert "towtank calibrate" in str(caught.value)


def test_a_single_gpu_is_a_node_without_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        local, "here", lambda: replace(CPU, gpus=("NVIDIA H100 PCIe",), gpu_memory_bytes=8e10)
    )
    machine = load_machine("local")
    assert (machine.device.name, machine.num_devices) == ("h100-80gb-pcie", 1)


def test_every_gpu_of_the_table_is_known() -> None:
    import yaml

    from towtank.hardware_profiles.load import load_device

    entries = yaml.safe_load((Path(local.__file__).with_name("gpus.yaml")).read_text())["gpus"]
    for entry in entries:
        device = load_device(entry["device"])
        assert entry["machine"] is None or load_machine(entry["machine"]).device.name == device.name


def test_links_are_read_from_the_matrix_of_the_driver() -> None:
    matrix = (
        "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-31\nGPU1\tNV18\t X \t0-31\n\nLegend:\n  X = Self\n"
    )
    assert first_link(matrix) == "NV18"
    assert first_link("") is None
