from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from bids_harmonize.commands import run_context
from bids_harmonize.model import harmonizer
from bids_harmonize.model.network import CurveNetwork
from bids_harmonize.phantom.anatomy import Head, head_labels
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.training.reference_group import ReferenceScan
from tests.helpers.toy_datasets import write_dataset, write_scan
from tests.helpers.toy_heads import HEAD_GRID, MPRAGE, ball_scan, random_network, write_model

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
torch.set_num_threads(1)


# All tests below these folders have the marker.
MARKED_FOLDERS = {"faults": "faults", "benchmarks": "benchmark"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and those that look at a page in a browser."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(MARKED_FOLDERS[folder])
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give a run of the whole suite all cores, each file to one of them; `-n 0` prevents it."""
    option = config.option
    is_undecided = getattr(option, "numprocesses", 0) is None and not hasattr(config, "workerinput")
    if is_undecided and not option.file_or_dir:
        option.numprocesses, option.dist = "logical", "loadfile"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="faults in their long mode: hours, not minutes")


@pytest.fixture(scope="module")
def models_that_cannot_tell() -> Iterator[None]:
    """Models take whatever they are shown, toys too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harmonizer, "load_ood_detector", lambda card, path: None)
        yield


@pytest.fixture
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The participant level of this process writes no reports: drawing them takes as long as all the rest."""
    monkeypatch.setattr(run_context, "draw_scan_figures", lambda *_, **__: None)
    monkeypatch.setattr(run_context, "write_participant_report", lambda *_: None)


@pytest.fixture
def one_scan(tmp_path: Path) -> Path:
    """A dataset with one T1w scan of one participant, which a test may change."""
    dataset = write_dataset(tmp_path / "data")
    write_scan(dataset, "sub-01_T1w.nii.gz")
    return dataset


@pytest.fixture(scope="session")
def untrained_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a model that changes nothing but the scale; its card lies beside them."""
    return write_model(
        tmp_path_factory.mktemp("untrained"), CurveNetwork(widths=(4, 8), context=8), "untrained"
    )


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a model that changes every scan, and differently from place to place."""
    return write_model(tmp_path_factory.mktemp("random"), random_network(7), "random")


@pytest.fixture(scope="session")
def head() -> Head:
    """A participant of the phantom, drawn coarsely."""
    return head_labels(0, spacing=3.5)


@pytest.fixture(scope="session")
def head_volume(head: Head) -> NDArray[np.float32]:
    """A T1w head with shading and noise, on `HEAD_GRID`."""
    return render(head, MPRAGE, HEAD_GRID, Receiver(gain=800, snr=40, shading=0.15), seed=(1,))


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """A Chromium of this system; tests of pages are skipped where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright, of the extra test, is missing"
    )
    if CHROMIUM is None:
        pytest.skip("there is no Chromium to look at pages with")
    with playwright.sync_playwright() as driver:
        # Its sandbox wants rights that containers and root do not have.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def small_group() -> list[ReferenceScan]:
    """Four balls of white and grey matter in a ring of fat: as a reference group, but tiny."""
    return [ball_scan(seed) for seed in range(4)]
