"""The shipped data: complete, sourced, plausible, and as the schemas say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from towtank.hardware_profiles import catalogue, files, json_schema
from towtank.hardware_profiles.fields import Kind
from towtank.hardware_profiles.load import list_devices, list_machines, load_device, load_machine
from towtank.hardware_profiles.records import Provenance
from towtank.hardware_profiles.resolve import resolve

KINDS: tuple[Kind, ...] = get_args(Kind)
FILES = [(kind, path) for kind in KINDS for path in sorted((files.SHIPPED / kind).glob("*.yaml"))]
MEASURED = {
    "a100-80gb-sxm", "h100-80gb-sxm", "h200-141gb", "b200", "b300", "gb200", "gb300", "l40s",
}  # fmt: skip
NAMED_DEVICES = [
    "v100-16gb",
    "v100-32gb",
    "a100-40gb-sxm",
    "a100-80gb-sxm",
    "a100-40gb-pcie",
    "a100-80gb-pcie",
    "a100-64gb-leonardo",
    "h100-80gb-sxm",
    "h100-80gb-pcie",
    "h100-96gb-500w",
    "h100-64gb",
    "h200-141gb",
    "h800-80gb",
    "gh200-96gb",
    "gh200-120gb",
    "b200",
    "b300",
    "gb200",
    "gb300",
    "mi250x-gcd",
    "mi300x",
    "mi300a",
    "pvc-1550-tile",
    "tpu-v4",
    "tpu-v5p",
    "tpu-v5e",
    "tpu-v6e",
]
NAMED_MACHINES = [
    "selene",
    "eos",
    "perlmutter",
    "perlmutter-a100-80",
    "frontier",
    "alps",
    "lumi-g",
    "aurora",
    "leonardo-booster",
    "summit",
    "juwels-booster",
    "marenostrum5-acc",
    "jupiter-booster",
    "el-capitan",
    "isambard-ai",
    "polaris",
    "grand-teton-h100-96gb",
    "dgx-v100",
    "dgx-a100",
    "dgx-h100",
    "dgx-h200",
    "dgx-b200",
    "dgx-b300",
    "gb200-nvl72",
    "gb300-nvl72",
    "aws-p4d-a100",
    "aws-p5-h100",
    "ethernet-a100",
    "cloud-a100-40gb",
    "cloud-h100-80gb",
    "tpu-v4-pod",
    "tpu-v5p-pod",
]


@pytest.mark.parametrize(("kind", "path"), FILES, ids=[path.stem for _, path in FILES])
def test_file_agrees_with_its_schema(kind: Kind, path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(json_schema.schema(kind))
    assert [error.message for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_committed_schema_is_that_of_the_fields(kind: Kind) -> None:
    text = json_schema.path_of(kind).read_text(encoding="utf-8")
    assert text == json_schema.render(kind), "run python -m towtank.hardware_profiles.json_schema"
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


@pytest.mark.parametrize(
    "change",
    [
        {"tdp": {"value": 400, "source": "x"}},
        {"tdp": {"value": "400 GB", "source": "x"}},
        {"tdp": {"value": "400 W"}},
        {"tpd": "unknown"},
        {"measured_as": ""},
        {"sustained_fraction": {"value": 1.5, "source": "x"}},
    ],
)
def test_schema_refuses_what_the_loader_refuses(change: dict[str, Any]) -> None:
    path = files.SHIPPED / "devices" / "a100-80gb-sxm.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(json_schema.schema("devices"))
    assert validator.is_valid(document)
    assert not validator.is_valid({**document, **change})


def test_schema_wants_all_figures_of_a_file_without_base() -> None:
    validator = jsonschema.Draft202012Validator(json_schema.schema("devices"))
    assert validator.is_valid({"name": "x", "from": "b200", "description": "d"})
    assert not validator.is_valid({"name": "x", "description": "d"})


@pytest.mark.parametrize("name", [path.stem for kind, path in FILES if kind == "networks"])
def test_network_file_resolves(name: str) -> None:
    profile = resolve("networks", name, (files.SHIPPED,))
    assert profile.values["joins"] in ("devices", "nodes")


def test_everything_named_is_there() -> None:
    assert all(load_device(name).peak_flop_per_s for name in NAMED_DEVICES)
    assert all(load_machine(name).node.devices >= 1 for name in NAMED_MACHINES)


@pytest.mark.parametrize("name", list_devices())
def test_device_is_plausible(name: str) -> None:
    device = load_device(name)
    assert device.measured_as in MEASURED
    assert load_device(device.measured_as).measured_as == device.measured_as
    assert device.peak_flop_per_s
    peaks = [
        device.peak_flop_per_s[p]
        for p in ("fp32", "tf32", "bf16", "fp8", "nvfp4")
        if p in device.peak_flop_per_s
    ]
    assert peaks == sorted(peaks), "narrower types are no slower"
    for precision, rate in device.achievable_flop_per_s.items():
        assert 0.3 < rate / device.peak_flop_per_s[precision] < 1
    assert device.memory_capacity_bytes is not None and 10e9 < device.memory_capacity_bytes < 400e9
    assert device.memory_bandwidth_bytes_per_s is not None
    assert 0.5e12 < device.memory_bandwidth_bytes_per_s < 10e12
    assert device.sustained_fraction is not None and 0.85 < device.sustained_fraction <= 1
    for figure in ("peak_flop_per_s", "achievable_flop_per_s"):
        for key in getattr(device, figure):
            assert device.sources[f"{figure}.{key}"].text


@pytest.mark.parametrize("name", list_machines())
def test_machine_is_plausible(name: str) -> None:
    machine = load_machine(name)
    node, network = machine.node, machine.network
    assert node.nic_bandwidth_bytes_per_s is not None and node.injection_bytes_per_s is not None
    whole = node.nics * node.nic_bandwidth_bytes_per_s
    assert 0.9 * whole <= node.injection_bytes_per_s <= whole * (1 + 1e-12)
    assert node.latency_s is not None and 0.5e-6 < node.latency_s < 10e-6
    # that of oneCCL, 80 us, is the longest
    assert network.latency_s is not None and node.latency_s <= network.latency_s < 100e-6
    if node.latency_ll128_s is not None:
        assert node.latency_ll128_s < node.latency_s
    if network.latency_ll128_s is not None:
        assert network.latency_ll128_s < network.latency_s
    # Omni-Path is the lowest: NCCL reaches it by verbs and through the host, 0.21 measured
    assert network.efficiency is not None and 0.2 < network.efficiency <= 1
    assert node.device_bandwidth_bytes_per_s is not None
    if node.fabric == "switch":
        assert node.pair_bandwidth_max_bytes_per_s == node.device_bandwidth_bytes_per_s
    if network.groups is not None and network.group_nodes is not None and machine.num_nodes is not None:
        # Groups are not all of one size.
        assert network.groups * network.group_nodes == pytest.approx(machine.num_nodes, rel=0.05)
    for source in machine.sources.values():
        assert source.provenance in get_args(Provenance)


def test_aliases_are_unique_and_hide_no_name() -> None:
    for kind in ("devices", "machines"):
        listed = [
            alias
            for path in (files.SHIPPED / kind).glob("*.yaml")
            for alias in yaml.safe_load(path.read_text(encoding="utf-8")).get("aliases", ())
        ]
        assert len(listed) == len(set(listed))
        assert not set(listed) & set(files.names(kind, (files.SHIPPED,)))


def test_table_of_machines() -> None:
    rows = {row.name: row for row in catalogue.machine_rows()}
    assert list(rows) == list_machines()
    assert rows["selene"].num_nodes == 560
    assert rows["dgx-h100"].num_nodes is None
    assert rows["lumi-g"].aliases == ("lumi",)


def test_table_of_devices() -> None:
    rows = {row.name: row for row in catalogue.device_rows()}
    assert rows["a100-80gb-sxm"].peak_bf16 == "312 TFLOP/s"
    assert rows["v100-16gb"].peak_bf16 == "125 TFLOP/s (fp16)"
    assert rows["b200"].memory == "180 GiB"


def test_every_figure_of_a_machine_with_its_source() -> None:
    rows = {row.field: row for row in catalogue.machine_figures("perlmutter")}
    assert rows["node.injection_bytes_per_s"].value == "100 GB/s"
    assert rows["node.injection_bytes_per_s"].source == "docs.nersc.gov/systems/perlmutter/architecture"
    assert rows["network.taper"].value == "unknown"
    assert rows["network.taper"].provenance is None
    assert rows["num_nodes"].value == "1536"
    assert rows["device.peak_flop_per_s.bf16"].value == "312 TFLOP/s"
    assert rows["device.sustained_fraction"].provenance == "calibration"
    assert rows["measured_bus_bandwidth_bytes_per_s.1x4"].value == "225 GB/s"
    assert rows["network.topology"].value == "dragonfly"


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from towtank.hardware_profiles.load import load_machine; load_machine('frontier');"
        "heavy = ('torch', 'pandas', 'scipy', 'numba', 'simpy', 'numpy', 'pydantic');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
