from collections.abc import Callable
from pathlib import Path

import pytest

from towtank.hardware_profiles.errors import InvalidProfile, ProfileError, UnknownProfile
from towtank.hardware_profiles.load import load_device, load_machine

Write = Callable[[str, str], Path]

HEAD = "name: x100\nfrom: a100-80gb-sxm\ndescription: A test\n"
SOURCES = "sources: {test: {text: made up, provenance: recalled}}\n"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("tpd: unknown\n", "tpd: unknown key; did you mean 'tdp'?"),
        ("tdp: {value: 500, source: test}\n", "tdp: a quantity is text with a unit, got 500"),
        ("tdp: {value: '500', source: test}\n", "tdp: '500' has no unit"),
        ("tdp: {value: 500 GB, source: test}\n", "a quantity of bytes, but watts is needed"),
        ("tdp: {value: -500 W, source: test}\n", "negative"),
        ("tdp: {value: 0 W, source: test}\n", "greater than zero"),
        ("tdp: {value: 500 W}\n", "write {value: ..., source: ...} or unknown"),
        ("tdp: 500 W\n", "write {value: ..., source: ...} or unknown, got '500 W'"),
        ("tdp: {value: 500 W, source: tset}\n", "'tset' is no key of sources; did you mean 'test'"),
        ("tdp: {value: 500 W, source: my ruler}\n", "'my ruler' is no key of sources"),
        ("tdp: {value: 500 W, source: test, provenance: guess}\n", "got 'guess'"),
        ("tdp: {value: 500 W, source: test, note: x}\n", "write {value: ..., source: ...}"),
        ("multiprocessors: {value: 10.5, source: test}\n", "a whole number from 1 is needed, got 10.5"),
        ("multiprocessors: {value: 0, source: test}\n", "a whole number from 1 is needed, got 0"),
        ("multiprocessors: {value: true, source: test}\n", "got True"),
        ("sustained_fraction: {value: 1.1, source: test}\n", "a number above 0 and at most 1"),
        ("sustained_fraction: {value: .nan, source: test}\n", "got nan"),
        ("sustained_fraction: {value: 0.5 W, source: test}\n", "got '0.5 W'"),
        ("peak_flop_per_s: {bf17: {value: 1 TFLOP/s, source: test}}\n", "did you mean 'bf16'"),
        ("peak_flop_per_s: {bf16: unknown}\n", "peak_flop_per_s.bf16: cannot be unknown"),
        ("peak_flop_per_s: 312 TFLOP/s\n", "a mapping of fp32"),
        ("vendor: ''\n", "vendor: text is needed"),
        ("vendor: 3\n", "vendor: text is needed, got 3"),
        ("aliases: x\n", "aliases: a list of lower-case names"),
    ],
)
def test_fault_of_a_device(folder: Path, write: Write, body: str, part: str) -> None:
    path = write("devices/x100", HEAD + SOURCES + body)
    with pytest.raises(InvalidProfile) as caught:
        load_device("x100", [folder])
    assert str(path) in str(caught.value)
    assert part in str(caught.value)
    assert len(caught.value.faults) == 1


def test_all_faults_at_once(folder: Path, write: Write) -> None:
    write("devices/x100", HEAD + SOURCES + "tdp: 500 W\nidle: {value: 5, source: test}\nmemry: unknown\n")
    with pytest.raises(InvalidProfile) as caught:
        load_device("x100", [folder])
    assert len(caught.value.faults) == 3
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["tdp", "idle", "memry"]


def test_a_wrong_source_is_told_once(folder: Path, write: Write) -> None:
    write(
        "devices/x100",
        HEAD
        + "sources: {test: {text: x}}\ntdp: {value: 5 W, source: test}\nidle: {value: 5 W, source: test}\n",
    )
    with pytest.raises(InvalidProfile) as caught:
        load_device("x100", [folder])
    assert len(caught.value.faults) == 1
    assert "sources.test: write {text: ..., provenance: ...}" in caught.value.faults[0]


def test_source_beside_the_figure(folder: Path, write: Write) -> None:
    write("devices/x100", HEAD + "tdp: {value: 5 W, source: my watt meter, provenance: measurement}\n")
    source = load_device("x100", [folder]).sources["tdp_w"]
    assert (source.text, source.provenance) == ("my watt meter", "measurement")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "a profile is a mapping of keys, got list"),
        ("just text\n", "a profile is a mapping of keys, got str"),
        ("name: x100\nname: x100\n", "line 2, column 1: not valid YAML: the key 'name' stands twice"),
        ("name: x100\n  tdp: [\n", "line 2"),
        ("name: x100\ntdp: {value: 5 W\n", "not valid YAML"),
        ("name: x100\ntdp: !!python/object:os.system {}\n", "not valid YAML"),
        (
            "name: y100\nfrom: a100-80gb-sxm\ndescription: d\n",
            "name: must be the name of the file, 'x100', got 'y100'",
        ),
        ("from: a100-80gb-sxm\ndescription: d\n", "name: must be the name of the file, 'x100', got None"),
        ("name: x100\nfrom: a100-80gb-sxm\n", "description: missing"),
        ("name: x100\nfrom: [a100-80gb-sxm]\ndescription: d\n", "from: the name of one profile"),
        ("name: x100\ndescription: d\n", "memory_capacity: missing; write it with its source, or unknown"),
        ("name: x100\nfrom: a100-80gb-sxm\ndescription: d\n1: 2\n", "1: unknown key"),
        ("name: x100\nfrom: a100-80gb-sxm\ndescription: d\nsources: []\n", "sources: a mapping of keys"),
    ],
)
def test_fault_of_a_file(folder: Path, write: Write, text: str, part: str) -> None:
    write("devices/x100", text)
    with pytest.raises(InvalidProfile) as caught:
        load_device("x100", [folder])
    assert part in str(caught.value)


def test_file_that_is_not_utf_8(folder: Path) -> None:
    (folder / "devices" / "x100.yaml").write_bytes("name: x100\ndescription: Gerät\n".encode("latin-1"))
    with pytest.raises(InvalidProfile, match="byte 27 is not UTF-8"):
        load_device("x100", [folder])


def test_from_an_unknown_profile(folder: Path, write: Write) -> None:
    write("devices/x100", "name: x100\nfrom: a100-80gb-sxn\ndescription: d\n")
    with pytest.raises(UnknownProfile, match="did you mean 'a100-80gb-sxm'"):
        load_device("x100", [folder])


def test_circle_is_printed(folder: Path, write: Write) -> None:
    for name, base in (("a1", "b1"), ("b1", "c1"), ("c1", "a1")):
        write(f"devices/{name}", f"name: {name}\nfrom: {base}\ndescription: d\n")
    with pytest.raises(ProfileError, match="come from each other: a1 -> b1 -> c1 -> a1"):
        load_device("a1", [folder])


def test_circle_of_one(folder: Path, write: Write) -> None:
    write("devices/a1", "name: a1\nfrom: a1\ndescription: d\n")
    with pytest.raises(ProfileError, match="come from each other: a1 -> a1"):
        load_device("a1", [folder])


MACHINE = "name: mine\nfrom: selene\ndescription: d\n" + SOURCES


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("node: {fabric: ring}\n", "node.fabric: must be one of switch, mesh, hierarchy, pcie, got 'ring'"),
        ("node: {nicks: unknown}\n", "node.nicks: unknown key; did you mean 'nics'?"),
        ("node: {devices: unknown}\n", "node.devices: cannot be unknown"),
        (
            "node: {from: slingshot-11}\n",
            "slingshot-11 joins nodes, but this section describes what joins devices",
        ),
        ("network: {topology: ring}\n", "network.topology: must be one of"),
        ("network: 3\n", "network: a mapping is needed, got 3"),
        ("device: 3\n", "device: the name of a device"),
        ("device: {tdp: unknown}\n", "device: the name of a device, or a mapping with from"),
        ("device: {from: b200, tpd: unknown}\n", "device.tpd: unknown key; did you mean 'tdp'?"),
        (
            "node: {pair_bandwidth_min: {value: 400 GB/s, source: test}}\n",
            "pair_bandwidth_min 4e+11 B/s must not exceed pair_bandwidth_max 3e+11 B/s",
        ),
        (
            "node: {device_bandwidth: {value: 1 GB/s, source: test}}\n",
            "pair_bandwidth_max 3e+11 B/s must not exceed device_bandwidth 1e+09 B/s",
        ),
        ("measured_bus_bandwidth: 3\n", "measured_bus_bandwidth: a list of"),
        ("measured_bus_bandwidth: [3]\n", "measured_bus_bandwidth[0]: write"),
        (
            "measured_bus_bandwidth: [{inner: 1, own: 3.., value: 1 GB/s, source: test}]\n",
            "measured_bus_bandwidth[0].own: '3..' must start at a power of two",
        ),
        (
            "measured_bus_bandwidth: [{inner: 0, own: 2, value: 1 GB/s, source: test}]\n",
            "measured_bus_bandwidth[0].inner: a size such as 4",
        ),
        (
            "measured_bus_bandwidth: [{inner: 1, own: 2, value: 1 GB, source: test}]\n",
            "bytes_per_s is needed",
        ),
    ],
)
def test_fault_of_a_machine(folder: Path, write: Write, body: str, part: str) -> None:
    write("machines/mine", MACHINE + body)
    with pytest.raises(InvalidProfile) as caught:
        load_machine("mine", [folder])
    assert part in str(caught.value)


def test_network_must_say_what_it_joins(folder: Path, write: Write) -> None:
    write("networks/mynet", "name: mynet\ndescription: d\n")
    write("machines/mine", MACHINE + "network: {from: mynet}\n")
    with pytest.raises(InvalidProfile, match="joins: missing"):
        load_machine("mine", [folder])


def test_machine_without_base_lists_what_is_missing(folder: Path, write: Write) -> None:
    write("machines/mine", "name: mine\ndescription: d\ndevice: b200\nnode: {from: nvlink5}\n")
    with pytest.raises(InvalidProfile) as caught:
        load_machine("mine", [folder])
    faults = "\n".join(caught.value.faults)
    assert "node.injection: missing; write it with its source, or unknown" in faults
    assert "network.topology: missing; write it" in faults
    assert "node.latency:" not in faults  # nvlink5 says it
