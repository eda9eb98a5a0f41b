from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from towtank.executor.data import IGNORED, Data
from towtank.executor.errors import DataError
from towtank.executor.goldfish import Goldfish
from towtank.executor.layers.batch import cut
from towtank.executor.memorize import (
    Experiment,
    _trainer,
    corpus,
    exact_matches,
    memorize,
    most_probable,
)
from towtank.executor.memorize_documents import Corpus, Readings, epochs
from towtank.executor.memorize_plot import memory_plot

SMALL = Experiment(documents=2, length=20, answer=4, unrelated=2, warm_up=2, layers=1, hidden=32)


def test_a_document_is_exact_where_all_its_last_tokens_are_right() -> None:
    right = np.array([[True, True, True], [True, False, True], [False, True, True], [True, True, True]])
    assert exact_matches(right) == 2


def test_each_bucket_is_read_as_often_as_it_says_and_last_at_the_end() -> None:
    found = epochs((0, 1, 4, 6), documents=3, seed=0)
    assert len(found) == 3 * (1 + 4 + 6)
    for bucket, times in enumerate((0, 1, 4, 6)):
        assert [found.count((bucket, number)) for number in range(3)] == [times] * 3
    assert {bucket for bucket, _ in found[-9:]} == {1, 2, 3}
    assert {bucket for bucket, _ in found[:6]} == {3}


def test_what_is_read_is_the_warm_up_and_then_the_buckets() -> None:
    documents = Corpus((np.full((2, 3), 7), np.full((2, 3), 8)), np.full((2, 3), 9))
    readings = Readings(documents, (0, 2), warm_up=3, seed=0)
    assert readings.warm_up_steps == 6
    rows = [readings.sequence(number).tolist() for number in range(len(readings))]
    assert rows == [[256, 9, 9, 9]] * 6 + [[256, 8, 8, 8]] * 4


def test_documents_of_the_buckets_and_the_warm_up_all_differ() -> None:
    found = corpus(SMALL)
    rows = np.concatenate([*found.buckets, found.unrelated])
    assert len(np.unique(rows, axis=0)) == 4 * 2 + 2
    assert 1 <= rows.min() <= rows.max() <= 255
    assert not np.array_equal(corpus(replace(SMALL, seed=1)).unrelated, found.unrelated)


def test_documents_are_cut_from_text_without_overlap(tmp_path: Path) -> None:
    text = bytes(range(200))
    (tmp_path / "text").write_bytes(text)
    found = corpus(replace(SMALL, data=tmp_path / "text", times=(0, 2)))
    rows = np.concatenate([*found.buckets, found.unrelated])
    assert sorted(row[0] for row in rows.tolist()) == sorted({row[0] for row in rows.tolist()})
    assert all(bytes(row) in text and row[0] % 20 == 0 for row in rows.tolist())
    with pytest.raises(DataError, match="10 pieces of 20 bytes, but 18 are needed"):
        corpus(replace(SMALL, data=tmp_path / "text", times=(0, 1, 2, 3), documents=4))


def test_the_mask_takes_targets_of_a_document_out_of_the_loss() -> None:
    readings, mask = Readings(corpus(SMALL), SMALL.times, 0, 0), Goldfish(2, 3)
    tokens, targets = Data(readings, mask).batch([0, 1])
    document = np.stack([readings.sequence(number)[1:] for number in (0, 1)])
    assert (tokens[:, 0] == 256).all()
    assert np.array_equal(tokens[:, 1:], document[:, :-1])
    assert np.array_equal(targets, np.where(mask.dropped(document), IGNORED, document))
    assert 0 < (targets == IGNORED).sum() < targets.size


def test_one_pass_tells_what_a_greedy_continuation_gives() -> None:
    """Token by token, from the beginning of a document on: exact match is the same as by `most_probable`."""
    trainer = _trainer(replace(SMALL, length=8), 1)
    start = torch.randint(33, 127, (1, 4), generator=torch.Generator().manual_seed(0))
    written = torch.cat((torch.tensor([[256]]), start, torch.zeros(1, 4, dtype=torch.int64)), 1)
    for place in range(5, 9):
        batch = cut(written[:, :-1], written[:, 1:], 0, trainer.positions, 0)
        written[0, place] = trainer.chunks[0].logits(batch).argmax(1)[place - 1]
    own = written[:, 1:].numpy()
    other = own.copy()
    other[0, 5] += 1
    assert np.array_equal(most_probable(trainer, own)[:, 4:], own[:, 4:])
    assert not np.array_equal(most_probable(trainer, other)[:, 4:], other[:, 4:])


def test_buckets_of_both_losses_are_reported_and_every_step_is_told() -> None:
    told: list[tuple[int, int]] = []
    found = memorize(SMALL, (None, Goldfish(2, 3)), lambda done, total: told.append((done, total)))
    steps = 2 * 2 + 2 * (2 * (1 + 4 + 6))
    assert told == [(done, steps) for done in range(1, steps + 1)]
    assert [[(one.times, one.documents) for one in each.buckets] for each in found] == [
        [(0, 2), (1, 2), (4, 2), (6, 2)]
    ] * 2
    assert found[0].dropped == 0.0
    assert 0.2 < found[1].dropped < 0.7
    assert found[0].last_loss != found[1].last_loss
    plot = memory_plot(found, SMALL.answer)
    assert "goldfish, k = 2, seen 6 times: 0 of 2" in plot
    assert plot.count("<circle") == 2 * 4 + 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"times": (0,)}, "one of them 1 or more"),
        ({"times": (2, 2)}, "named twice"),
        ({"answer": 20}, "answer = 20 leaves nothing of length = 20"),
        ({"hidden": 48}, "a multiple of 32"),
        ({"learning_rate": 0.0}, "more than 0"),
        ({"documents": 0}, "documents = 0, but it must be 1 or more"),
    ],
)
def test_faults_are_sentences(changes: dict[str, object], told: str) -> None:
    assert SMALL.faults() == []
    (found,) = replace(SMALL, **changes).faults()  # type: ignore[arg-type]
    assert told in found


@pytest.mark.slow
def test_what_was_read_six_times_is_known_by_heart_but_not_with_the_mask() -> None:
    plain, masked = memorize(Experiment(), (None, Goldfish(2, 13)))
    exact = {one.times: one.exact for one in plain.buckets}
    assert exact[0] == 0
    assert exact[6] > plain.buckets[3].documents / 2
    assert exact[6] >= exact[4] >= exact[1]
    assert [one.exact for one in masked.buckets] == [0, 0, 0, 0]
