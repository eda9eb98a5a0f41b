"""Text as tokens: counted by hand, and the same whatever reads it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.executor.data import IGNORED, Data, Synthetic, Text, files_of, load_data
from towtank.executor.errors import DataError
from towtank.executor.goldfish import Goldfish


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_bytes(b"defgh")
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "c.txt").write_bytes(b"")  # an empty file has no end either
    (tmp_path / ".hidden").write_bytes(b"zzz")
    return tmp_path


def test_files_follow_each_other_with_an_end_after_each(folder: Path) -> None:
    text = Text(folder, sequence=4, seed=0)
    assert text.tokens(0, 10).tolist() == [*b"abc", 256, *b"defgh", 256]
    assert text.tokens(2, 3).tolist() == [99, 256, 100]
    assert text.num_sequences == 2  # ten tokens: two of four, and the one after


def test_every_epoch_holds_every_sequence_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(bytes(range(101)))
    text = Text(file, sequence=4, seed=3)
    starts = [int(text.sequence(number)[0]) for number in range(50)]
    assert sorted(starts[:25]) == sorted(starts[25:]) == list(range(0, 100, 4))
    assert starts[:25] != starts[25:]
    assert starts[:25] != sorted(starts[:25])
    assert starts == [int(Text(file, sequence=4, seed=3).sequence(number)[0]) for number in range(50)]
    assert starts != [int(Text(file, sequence=4, seed=4).sequence(number)[0]) for number in range(50)]


def test_targets_are_the_tokens_after(folder: Path) -> None:
    tokens, targets = Data(Text(folder, sequence=4, seed=0)).batch([0, 1])
    whole = {(97, 98, 99, 256): [98, 99, 256, 100], (100, 101, 102, 103): [101, 102, 103, 104]}
    assert {
        tuple(row): target for row, target in zip(tokens.tolist(), targets.tolist(), strict=True)
    } == whole


@given(st.integers(0, 10**9), st.integers(2, 5000), st.integers(0, 5))
def test_synthetic_sequences_count_on(number: int, vocabulary: int, seed: int) -> None:
    found = Synthetic(vocabulary, 512, seed).sequence(number)
    size = min(vocabulary, 256)
    assert found.shape == (513,) and found.min() >= 0 and found.max() < size
    follows = (found[1:] == (found[:-1] + 1) % size).mean()
    assert follows > 0.75  # 7/8 and what chance adds


def test_a_batch_is_its_sequences_in_any_company() -> None:
    data = load_data(None, vocabulary=1000, sequence=16, seed=1)
    together, _ = data.batch([5, 2, 9])
    assert [data.batch([number])[0][0].tolist() for number in (5, 2, 9)] == together.tolist()


@pytest.mark.parametrize(("k", "h"), [(2, 13), (3, 4), (128, 1)])
def test_the_goldfish_mask_is_that_of_the_published_code(k: int, h: int) -> None:
    import torch

    targets = torch.randint(1, 50_000, (3, 200), generator=torch.Generator().manual_seed(0))
    table = torch.rand(1_000_003, generator=torch.Generator().manual_seed(2971215073))
    expected = torch.zeros_like(targets, dtype=torch.bool)
    expected[:, h - 1 :] = table[targets.unfold(1, h, 1).prod(dim=-1) % 1_000_003] < 1 / k
    assert np.array_equal(Goldfish(k, h).dropped(targets.numpy()), expected.numpy())


def test_goldfish_keys_wrap_as_64_bit_integers_do() -> None:
    import torch

    table = torch.rand(1_000_003, generator=torch.Generator().manual_seed(2971215073)).tolist()
    row = [50_000 + 7 * place for place in range(40)]
    expected = [False] * 4
    for last in range(4, 40):
        product = 1
        for token in row[last - 4 : last + 1]:
            product *= token
        wrapped = (product + 2**63) % 2**64 - 2**63
        expected.append(table[wrapped % 1_000_003] < 0.5)
    found = Goldfish(2, 5).dropped(np.array([row]))
    assert found[0].tolist() == expected
    assert 10 < found.sum() < 30


def test_a_passage_loses_the_same_tokens_wherever_it_stands() -> None:
    passage = np.random.default_rng(0).integers(1, 256, 60)
    goldfish = Goldfish(3, 8)
    alone = goldfish.dropped(passage[None])[0]
    within = goldfish.dropped(np.r_[np.arange(1, 30), passage][None])[0][29:]
    assert np.array_equal(alone[7:], within[7:])


def test_dropped_targets_do_not_count(folder: Path) -> None:
    data = load_data(folder, vocabulary=300, sequence=4, seed=0, goldfish=Goldfish(2, 2))
    plain = load_data(folder, vocabulary=300, sequence=4, seed=0)
    dropped = Goldfish(2, 2).dropped(plain.batch([0, 1])[1])
    assert dropped.any() and not dropped.all()
    assert np.array_equal(data.batch([0, 1])[1] == IGNORED, dropped)
    assert np.array_equal(data.batch([0, 1])[0], plain.batch([0, 1])[0])


def test_what_is_wrong_with_data_is_said(folder: Path) -> None:
    with pytest.raises(DataError, match=r"10 tokens .* less than one sequence of 10 .* smaller `sequence`"):
        Text(folder, sequence=10, seed=0)
    with pytest.raises(DataError, match="no such file or folder"):
        files_of(folder / "none")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        files_of(folder / "empty")
    with pytest.raises(DataError, match=r"vocabulary of 257 .* but the model has 256"):
        load_data(folder, vocabulary=256, sequence=4, seed=0)
    with pytest.raises(DataError, match="k=1 must be 2 or more"):
        Goldfish(1)
    with pytest.raises(DataError, match="h=0 must be 1 or more"):
        Goldfish(2, 0)


def test_a_file_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(DataError, match=r"a\.txt: cannot be read \(Permission denied\)"):
        Text(folder, sequence=4, seed=0)
