"""What is said of a search under way."""

import pytest

from towtank.autotune.search.records import Progress
from towtank.cli.tune_progress import progress_words


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress("plans", 0, 0, None), ""),
        (Progress("memory", 524288, 2092593, None), "524,288 of 2,092,593"),
        (Progress("compute", 0, 2092593, 61.5), "of 2,092,593 plans, best 61.50 s"),
        (Progress("probes", 0, 0, 61.5), "best 61.50 s"),
        (Progress("memory and bounds", 0, 2092593, None), "of 2,092,593 plans"),
        (Progress("memory and bounds", 2048, 35780, 61.5), "2,048 of 35,780, best 61.50 s"),
        (Progress("simulation", 96, 1204, 61.2), "96 of 1,204, best 61.20 s"),
    ],
)
def test_words_say_how_far_a_search_is(progress, words):
    assert progress_words(progress) == words
