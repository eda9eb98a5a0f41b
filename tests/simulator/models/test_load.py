"""Loading: references, our YAML format and its faults."""

from pathlib import Path

import pytest

from towtank.simulator.models.errors import ModelError, UnknownModel
from towtank.simulator.models.load import list_models, load_model, with_changes
from towtank.simulator.models.records import Attention, Mlp, ModelSpec

GOOD = """
num_layers: 2
hidden: 64
vocab: 100
sequence: 32
attention: {heads: 4}
mlp: {hidden: 128, gated: true}
norm: rmsnorm
positions: rope
tied_embeddings: false
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_yaml_file_with_derived_keys(tmp_path: Path) -> None:
    expected = ModelSpec(
        name="mine",
        num_layers=2,
        hidden=64,
        vocab=100,
        sequence=32,
        attention=Attention(heads=4, kv_heads=4, head_dim=16),
        mlp=Mlp(hidden=128, gated=True),
        experts=None,
        norm="rmsnorm",
        norm_bias=False,
        positions="rope",
        max_positions=0,
        tied_embeddings=False,
    )
    path = written(tmp_path, GOOD)
    assert load_model(path) == load_model(str(path)) == expected


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("heads: 4", "heads: 4.5, kvheads: 2, kv_heads: 4, head_dim: 16")
    text = text.replace("vocab: 100", "vocab: -1").replace(
        "norm: rmsnorm", "norm: batchnorm\nnorm_bias: false"
    )
    text = text.replace("num_layers: 2\n", "layers: 2\n")
    with pytest.raises(ModelError) as caught:
        load_model(written(tmp_path, text))
    assert str(caught.value).splitlines()[1:] == [
        "  unknown key layers; did you mean 'num_layers' or 'mtp_layers'?",
        "  missing key num_layers",
        "  vocab must be positive, but it is -1",
        "  unknown key attention.kvheads; did you mean 'kv_heads' or 'heads'?",
        "  attention.heads must be a whole number, but it is 4.5",
        "  norm must be one of layernorm, rmsnorm, but it is 'batchnorm'",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("heads: 4", "heads: 4, kv_heads: 3"), "attention.heads must be a multiple of attention.kv_heads"),
        (("heads: 4", "heads: 6"), "missing key attention.head_dim"),
        (("positions: rope", "positions: learned\nmax_positions: 16"), "sequence <= max_positions must hold"),
        (("positions: rope", "positions: learned"), "missing key max_positions"),
        (("gated: true", "gated: 1"), "mlp.gated must be true or false, but it is 1"),
        (("heads: 4", "heads: 4, windows: []"), "attention.windows must be a list of token counts or null"),
        (("mlp:", "experts: {num_experts: 2, top_k: 3, hidden: 8, gated: true}\nmlp:"), "experts.top_k <="),
        (("hidden: 64", "hidden: 64\n  bad indent: ["), "is not YAML"),
    ],
)
def test_each_rule_names_the_fault(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message.replace("[", r"\[").replace(".", r"\.")):
        load_model(written(tmp_path, GOOD.replace(*change)))


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UnknownModel, match=r"'llama3-7b'.*did you mean .*'llama3-70b'"):
        load_model("llama3-7b")
    with pytest.raises(UnknownModel, match="no model 'zzz'"):
        load_model("zzz")


def test_missing_file_says_what_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file at .*give a YAML file, a config\.json"):
        load_model(tmp_path / "nothing.yaml")
    with pytest.raises(ModelError, match=r"no model file at .*config\.json"):
        load_model(tmp_path)


def test_aliases_are_listed_and_load_the_same_model() -> None:
    assert {"llama-30b", "llama-33b", "gpt3-175b", "axonn-5b", "gpt-5b"} <= set(list_models())
    assert load_model("llama-30b") == load_model("llama-33b")
    assert load_model("axonn-5b") == load_model("gpt-5b")


def test_with_changes_keeps_a_full_position_table_full() -> None:
    megatron = with_changes(load_model("megatron-1.7b"), sequence=4096)
    assert (megatron.sequence, megatron.max_positions) == (4096, 4096)
    opt = with_changes(load_model("opt-125m"), sequence=1024)
    assert (opt.sequence, opt.max_positions) == (1024, 2050)
    with pytest.raises(ModelError, match="4096 tokens need more than the 2050 rows"):
        with_changes(load_model("opt-125m"), sequence=4096)
    with pytest.raises(ModelError, match="3 of 2 layers are dense"):
        with_changes(load_model("deepseek-v3"), num_layers=2)
    with pytest.raises(ModelError, match="sequence must be positive, but it is 0"):
        with_changes(load_model("tiny-llama"), sequence=0)
    assert with_changes(load_model("llama3.1-405b"), num_layers=8).num_layers == 8
