"""The zoo: every entry loads, and counts what its authors print, to the printed digit."""

import math
from pathlib import Path

import pytest

from towtank.simulator.models import load as load_module
from towtank.simulator.models.count import parameters
from towtank.simulator.models.load import list_models, load_model, published_parameters

UNITS = {"M": 1e6, "B": 1e9, "T": 1e12}


def agrees(count: int, printed: str | int) -> bool:
    """Whether `printed` is `count`, or `count` rounded or cut to the digits of `printed`."""
    if isinstance(printed, int):
        return count == printed
    text, unit = printed[:-1], UNITS[printed[-1]]
    scaled = count / unit * 10 ** len(text.partition(".")[2])
    return round(float(text) * 10 ** len(text.partition(".")[2])) in (round(scaled), math.floor(scaled))


def test_agrees_tells_digits_apart() -> None:
    assert (
        agrees(6_738_415_616, "6.74B") and agrees(6_738_415_616, "6.73B") and agrees(405_853_388_800, "405B")
    )
    assert not agrees(6_738_415_616, "6.75B") and not agrees(6_738_415_616, 6_738_415_617)


@pytest.mark.parametrize("name", list_models())
def test_counts_what_the_authors_print(name: str) -> None:
    model = load_model(name)
    published = published_parameters(name)
    count = parameters(model)
    assert model.source
    if model.name.startswith("tiny"):
        assert not published
        return
    if published.get("nominal"):
        printed = float(published["total"][:-1]) * UNITS[published["total"][-1]]
        assert count.without_mtp == pytest.approx(printed, rel=0.05)
    else:
        assert agrees(count.without_mtp, published["total"])
    without_embedding = count.active - count.embedding
    assert agrees(count.active, published.get("active", count.active))
    assert agrees(without_embedding, published.get("active_without_embedding", without_embedding))


def test_every_model_lies_in_the_file_that_its_name_opens() -> None:
    for stem in load_module._stems():
        family = load_module._family(stem)
        assert set(family) <= {"defaults", "models", "aliases"}
        for name in [*family.get("models", {}), *family.get("aliases", {})]:
            assert load_module._stem_of(name) == stem, name
        for target in family.get("aliases", {}).values():
            assert load_model(target).name == target


def test_exact_counts_of_models_without_a_printed_count() -> None:
    # recorded once; held so that a change of the tables is seen
    expected = {
        "deepseek-v3": 671_026_419_200,
        "qwen3-235b-a22b": 235_093_634_560,
        "kimi-k2": 1_026_408_232_448,
    }
    assert {name: parameters(load_model(name)).without_mtp for name in expected} == expected


def test_mpt_counts_follow_the_sequence_as_llm_foundry_prints_them() -> None:
    # parameters in billions by (model, sequence): mosaicml/llm-foundry:scripts/train/benchmarking/README.md
    printed = {("mpt-3b", 512): 2.6479, ("mpt-3b", 65536): 2.8144, ("mpt-13b", 32768): 13.0112}
    printed |= {("mpt-7b", 16384): 6.7176, ("mpt-125m", 65536): 0.1741, ("mpt-350m", 8192): 0.3623}
    for (name, sequence), billions in printed.items():
        assert round(parameters(load_model(name, sequence=sequence)).total / 1e9, 4) == billions


def test_zoo_files_are_plain_ascii_text() -> None:
    for path in Path(load_module._ZOO).glob("*.yaml"):
        assert path.read_bytes().isascii() and path.read_text().endswith("\n"), path
