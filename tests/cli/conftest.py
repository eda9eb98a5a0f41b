from collections.abc import Callable
from dataclasses import dataclass

import pytest

from towtank.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]

SMALL = ["predict", "--model", "gpt-5b", "--machine", "selene", "--stack", "megatron-2021"]
"""A job whose plan the tests complete; it is predicted in some milliseconds."""


@pytest.fixture
def towtank(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def run(*arguments: str) -> Outcome:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def small_job() -> list[str]:
    return [*SMALL, "--set", "tensor_x=2,pipeline=2,data=2,global_batch=16,recompute=full,precision=fp16"]
