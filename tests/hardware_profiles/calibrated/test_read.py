from pathlib import Path

import pytest
import yaml
from tests.hardware_profiles.calibrated.examples import calibration

from towtank.hardware_profiles.calibrated.read import read_calibration, write_calibration
from towtank.hardware_profiles.errors import InvalidProfile, ProfileError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "bench.yaml"
    write_calibration(path, calibration(), "one line\nanother")
    assert read_calibration(path) == calibration()
    assert path.read_text().startswith("# one line\n# another\nname: bench\n")


def _changed(path: Path, **changes: object) -> Path:
    write_calibration(path, calibration(path.stem), "notes")
    document = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump(document))
    return path


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    table = {
        "collective": "send",
        "size": 2,
        "processes": 2,
        "message_bytes": [8.0, 4.0],
        "seconds": [1.0, 0.0],
    }
    path = _changed(tmp_path / "bench.yaml", name="other", collectives=[table], process_counts=[2, 1])
    with pytest.raises(InvalidProfile) as caught:
        read_calibration(path)
    assert len(caught.value.faults) == 3
    assert "name: must be that of the file, 'bench'" in str(caught.value)


def test_unknown_and_missing_keys_are_faults(tmp_path: Path) -> None:
    path = _changed(tmp_path / "bench.yaml", extra=1, mode=None)
    with pytest.raises(InvalidProfile) as caught:
        read_calibration(path)
    assert {fault.split(":")[0] for fault in caught.value.faults} == {"extra", "mode"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nothing\.yaml"):
        read_calibration(tmp_path / "nothing.yaml")
