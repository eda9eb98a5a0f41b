"""Whatever stands in a file: a plan, or a message."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.autotune.reading.records import Imported, ReadingError
from towtank.autotune.reading.sources import SOURCES, import_plan

PIECES = st.sampled_from(
    [
        "--bf16", "--micro-batch-size", "1", "0", "-3", "auto", "=", "$X", "${X", "$((1/0))", "$(", ")", "(", "'",
        '"', "\\", "\n",
        "#", "--num-layers", "--pipeline-model-parallel-layout", "Et|(t|)*2L", "((", "--cp-comm-type", "{", "}", "[",
        "]", ":", ",",
        '"train_batch_size"', '"zero_optimization"', "null", "true", "--pipeline-model-parallel-size", "--fp8-format",
        "&x *x",
        "--num-distributed-optimizer-instances", "--recompute-granularity", "full", "x.py", "torchrun", "--nnodes",
        "1:2",
    ]
)  # fmt: skip


@pytest.mark.parametrize("source", [None, *SOURCES])
@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=40) | st.lists(PIECES, max_size=14).map(" ".join))
def test_a_plan_or_a_message(source, text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any"
        path.write_text(text, encoding="utf-8")
        try:
            found = import_plan(path, source, devices=8)
        except ReadingError as error:
            found = error
    assert isinstance(found, Imported | ReadingError)
    assert isinstance(found, Imported) or all(found.faults)
