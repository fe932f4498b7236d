from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from heads import HEAD_GRID, MPRAGE, ball_scan, random_network, write_model
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from bids_harmonize import model
from bids_harmonize.network import CurveNetwork
from bids_harmonize.phantom import Head, Receiver, head_labels, render
from bids_harmonize.reference import ReferenceScan

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="faults in their long mode: hours, not minutes")


@pytest.fixture(scope="module")
def models_that_cannot_tell() -> Iterator[None]:
    """Models take whatever they are shown, toys too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_recognizer", lambda card, path: None)
        yield


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
    """A person of the phantom, drawn coarsely."""
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
