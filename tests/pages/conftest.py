"""A page of a small step, and a browser where there is one."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from towtank.hardware_profiles.load import load_machine
from towtank.pages.records import Page
from towtank.pages.step_report import page_of, step_report
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.stacks.load import load_stack

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def prediction() -> Prediction:
    plan = Plan(tensor_x=2, pipeline=4, data=2, global_batch=32, recompute="full")
    machine = load_machine("selene")
    return predict(load_model("gpt-5b"), machine, plan, stack=load_stack("megatron-core"))


@pytest.fixture(scope="session")
def page(prediction: Prediction) -> Page:
    return page_of(step_report(prediction, ["towtank predict --plan '<b>&</b>.yaml'"]))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    found = next((path for path in map(shutil.which, CHROMIUM) if path), None)
    if found is None:
        pytest.skip("no Chromium on this computer: install the package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the local page is started in, with a secret beside it and a link to that."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.yaml").write_text("secret: of somebody\n")
    inside = outside / "inside"
    inside.mkdir()
    (inside / "link.yaml").symlink_to(outside / "secret.yaml")
    return inside
