"""The wall of pictures: every scan once, by site, framed where it is flagged, and small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bids_harmonize.commands.group import write_group_reports
from bids_harmonize.report.components.thumbnails import figure_pattern, thumbnail, thumbnail_path
from bids_harmonize.report.group import wall
from tests.helpers.group_results import REFERENCE, SITES, intensities, record, write_group, write_sidecar
from tests.helpers.html_page import Page
from tests.helpers.toy_datasets import head

MEGABYTES_OF_1000 = 12


def with_pictures(folder: Path, people: int) -> Path:
    """A group of which every scan but the last has its small picture; scan 3 is an outlier."""
    out = write_group(folder, people)
    write_sidecar(out, "sub-0003_T1w", record(intensities(SITES["north"], 1.5 * REFERENCE, 3)))
    (out / "sub-0003.html").touch()
    # A slice as rich in detail as that of a real scan, which takes most room.
    rng = np.random.default_rng(0)
    plane = np.kron(head(1)[:, :, 10], np.ones((10, 10), np.float32))
    plane = (plane + rng.normal(0, 0.05 * plane.max(), plane.shape)).astype(np.float32)
    picture = thumbnail([(plane, float(plane.max()))] * 2, (180.0, 220.0))
    for sidecar in sorted(out.rglob("*_T1w.json"))[: people - 1]:
        path = thumbnail_path(figure_pattern(sidecar, sidecar.parents[1] / "figures"))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture)
    return out


def page_of(out: Path) -> tuple[str, Page]:
    (report,) = write_group_reports(out, out.parent)
    text = report.page.read_text(encoding="utf-8")
    return text, Page(text)


def test_every_scan_hangs_on_the_wall(tmp_path: Path) -> None:
    text, page = page_of(with_pictures(tmp_path, 12))
    pictures = page.all("img")
    assert len(pictures) == 11
    assert all(picture["loading"] == "lazy" for picture in pictures)
    assert all(picture["src"].startswith("data:image/webp;base64,") for picture in pictures)
    assert pictures[0]["alt"] == "sub-0000_T1w before and after"
    # The one without a picture is not lost.
    assert "sub-0011_T1w: no picture" in page.text
    # Sites are in the order of their names, and the wall comes first.
    places = [text.index(f"<h3>{site} ") for site in sorted(SITES)]
    assert places == sorted(places)
    assert text.index('id="wall"') < text.index("Scans to look at</h2>")


def test_flagged_scans_are_framed_and_lead_to_their_page(tmp_path: Path) -> None:
    _, page = page_of(with_pictures(tmp_path, 12))
    framed = [tag for _, tag in page.tags if tag.get("class") == "flagged"]
    assert len(framed) == 1
    assert framed[0]["href"] == "sub-0003.html"
    assert framed[0]["title"].startswith("sub-0003_T1w: intensities unlike the other scans'")


def test_a_thousand_scans_fit_in_a_page(tmp_path: Path) -> None:
    text, page = page_of(with_pictures(tmp_path, 1000))
    assert len(page.all("img")) == 999
    assert len(text.encode()) < MEGABYTES_OF_1000 * 1e6


def test_too_many_scans_are_counted_and_flagged_ones_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall, "MAX_PICTURES", 2)
    _, page = page_of(with_pictures(tmp_path, 12))
    assert [picture["alt"] for picture in page.all("img")] == [
        "sub-0000_T1w before and after",
        "sub-0003_T1w before and after",
    ]
    assert "10 scans more are left out" in " ".join(page.text.replace("\u00a0", " ").split())


def test_halves_lie_side_by_side_and_a_missing_one_is_black() -> None:
    from io import BytesIO

    from PIL import Image

    plane = np.full((40, 50), 5.0, np.float32)
    picture = np.asarray(Image.open(BytesIO(thumbnail([(plane, 10.0), None], (40.0, 50.0)))).convert("L"))
    half = picture.shape[1] // 2
    assert picture.shape[0] == 96
    assert np.abs(picture[10:-10, 5 : half - 5].astype(int) - 128).max() <= 3
    assert picture[10:-10, half + 5 :].max() <= 3
