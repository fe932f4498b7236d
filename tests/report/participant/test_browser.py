"""The page about a participant in a browser: nothing fails, nothing is fetched, and its controls work."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from tests.helpers.browser import WINDOWS, Tab, open_tab
from tests.helpers.toy_datasets import harmonize, head, image_of, write_dataset, write_scan


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, random_model: Path) -> str:
    """Of a page about two scans, one of thick slices."""
    folder = tmp_path_factory.mktemp("browser")
    raw = write_dataset(folder / "raw")
    write_scan(raw, "sub-01_run-1_T1w.nii.gz", image_of(head(1, (40, 48, 40)), 4.5))
    write_scan(raw, "sub-01_run-2_T1w.nii.gz", image_of(head(2, (40, 48, 12)), (4.5, 4.5, 15.0)))
    result = harmonize(raw, folder / "out", "participant", "--model", random_model)
    assert result.code == 0, result.err
    return (folder / "out/sub-01.html").as_uri()


def cut(tab: Tab) -> str:
    """Where the border between before and after stands in the first scan."""
    return tab.page.evaluate("document.querySelector('.compare').style.getPropertyValue('--cut')")


@pytest.fixture
def tab(chromium: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """The page, opened with the settings that a test gives as a parameter."""
    with open_tab(chromium, address, **getattr(request, "param", {})) as tab:
        yield tab


@pytest.mark.parametrize("tab", WINDOWS, indirect=True)
def test_it_loads_fits_and_can_be_read_by_everybody(tab: Tab) -> None:
    assert tab.messages == []
    assert {url.split(":")[0] for url in tab.requests} == {"file"}
    assert tab.page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert tab.fits
    tab.page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert tab.violations() == []


def test_the_slider_is_moved_by_keys_and_shows_before_or_after(tab: Tab) -> None:
    slider = tab.page.locator("input[type=range]").first
    pair = tab.page.locator(".pair").first
    seen = {}
    for key, border in (("Home", "0%"), ("End", "100%")):
        slider.focus()
        tab.page.keyboard.press(key)
        assert cut(tab) == border
        seen[key] = _inner(pair.screenshot())
    assert slider.get_attribute("aria-valuetext") == "100 % before, 0 % after"
    tab.page.keyboard.press("ArrowLeft")
    assert cut(tab) == "99%"
    # The two images differ, and the border shows both.
    assert np.abs(seen["Home"] - seen["End"]).max() > 0.05
    tab.page.evaluate("document.querySelectorAll('input')[0].value = 50")
    slider.dispatch_event("input")
    half = _inner(pair.screenshot())
    middle = half.shape[1] // 2
    np.testing.assert_allclose(half[:, : middle - 4], seen["End"][:, : middle - 4], atol=0.02)
    np.testing.assert_allclose(half[:, middle + 4 :], seen["Home"][:, middle + 4 :], atol=0.02)


def _inner(png: bytes) -> NDArray[np.float32]:
    """The picture without its letters and the shades at its edges."""
    picture = imread(io.BytesIO(png))[..., :3]
    height, width = picture.shape[:2]
    return picture[height // 6 : -height // 6, width // 6 : -width // 6]


def test_pictures_are_dragged_and_alternate(tab: Tab) -> None:
    pair = tab.page.locator(".pair").first
    pair.click(position={"x": pair.bounding_box()["width"] / 4, "y": 20})
    assert cut(tab) in ("24%", "25%", "26%")
    button = tab.page.locator(".compare button").first
    button.focus()
    tab.page.keyboard.press("Enter")
    assert (button.get_attribute("aria-pressed"), cut(tab)) == ("true", "100%")
    # The page's security policy lets no text be evaluated in it, not even a condition to wait for.
    tab.page.locator(".compare[style='--cut: 0%;']").first.wait_for(state="attached")
    tab.page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    # The other scan's pictures have their own border.
    assert (
        tab.page.evaluate("document.querySelectorAll('.compare')[1].style.getPropertyValue('--cut')") == "50%"
    )


def test_proportions_on_the_screen_are_those_of_the_body(tab: Tab) -> None:
    boxes = [pair.bounding_box() for pair in tab.page.locator(".pair").all()[3:6]]
    x, y, z = 40 * 4.5, 48 * 4.5, 12 * 15.0
    for box, (across, upwards) in zip(boxes, ((x, y), (x, z), (y, z)), strict=True):
        assert box["width"] / box["height"] == pytest.approx(across / upwards, rel=0.02)
    # All three pictures have one scale.
    assert boxes[0]["width"] / boxes[2]["width"] == pytest.approx(x / y, rel=0.05)


def test_links_lead_to_the_scans(tab: Tab) -> None:
    tab.page.locator("nav a").nth(1).click()
    top = tab.page.locator('[id="sub-01_run-2_T1w"]').bounding_box()["y"]
    assert 0 <= top + 50 < 100


def test_methods_are_copied_without_a_network(tab: Tab) -> None:
    tab.page.locator("[data-copies]").click()
    assert tab.page.locator("#methods-told").inner_text() == "Copied."
    assert "harmonized with bids-harmonize" in tab.page.evaluate("getSelection().toString()")


@pytest.mark.parametrize("tab", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_both_images_are_seen_side_by_side(tab: Tab) -> None:
    first = tab.page.locator(".pair").first
    before, after = (first.locator(f".{what}").bounding_box() for what in ("before", "after"))
    assert before["y"] == after["y"]
    assert before["x"] + before["width"] <= after["x"]
    assert not tab.page.locator(".controls").first.is_visible()
    assert not tab.page.locator("[data-copies]").is_visible()
