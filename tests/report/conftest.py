from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


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
