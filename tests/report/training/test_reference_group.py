"""The table and the contact sheet of a choice."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from bids_harmonize.errors import CannotCreate
from bids_harmonize.measures.image_quality import QUALITY_METRICS, Quality
from bids_harmonize.report.training.reference_group import contact_sheet, write_reference_group
from bids_harmonize.training.reference_group import ReferenceScan, ReferenceSelection, select_group
from tests.helpers.toy_heads import ball_scan

VALUES = {"snr": 11.0, "snrd": 37.0, "cnr": 2.5, "efc": 0.5, "fber": 1350.0}
MISSING = {"inu": "it cannot be measured here"}


def scans(number: int = 5) -> list[ReferenceScan]:
    quality = Quality(values=VALUES, missing=MISSING)
    others = [replace(ball_scan(seed), quality=quality) for seed in range(number - 1)]
    odd = ball_scan(number - 1)
    volume = (odd.reference_intensity * (odd.volume / odd.reference_intensity) ** 3).astype(np.float32)
    return [*others, replace(odd, volume=volume, quality=quality)]


@pytest.fixture(scope="module")
def selection() -> ReferenceSelection:
    return select_group(scans(), 4)


@pytest.fixture(scope="module")
def written(selection: ReferenceSelection, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_reference_group(selection, tmp_path_factory.mktemp("choice") / "new", "T1w")


def pixels(selection: ReferenceSelection, modality: str = "T1w") -> NDArray[np.uint8]:
    canvas = FigureCanvasAgg(contact_sheet(selection, modality))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_files_and_nothing_else(written: list[Path]) -> None:
    assert sorted(written) == sorted(written[0].parent.iterdir())
    assert [path.name for path in written] == [f"reference-group_T1w.{end}" for end in ("tsv", "json", "png")]
    assert written[2].read_bytes().startswith(b"\x89PNG\r\n")


def test_table_tells_who_is_in_and_why(selection: ReferenceSelection, written: list[Path]) -> None:
    table, dictionary, _ = written
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == list(json.loads(dictionary.read_text()))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["group"] for row in rows] == ["in"] * 4 + ["out"]
    assert rows[-1]["scan"] == "ball-4"
    assert "unlike the others" in rows[-1]["reason"]
    assert {float(row["fber"]) for row in rows} == {VALUES["fber"]}
    for ranked, row in zip(selection.ranking, rows, strict=True):
        assert float(row["score"]) == pytest.approx(ranked.candidate.score, rel=1e-3, abs=1e-3)
        assert float(row["score"]) == pytest.approx(
            float(row["quality"]) + float(row["homogeneity"]), rel=1e-2, abs=1e-2
        )
    assert {row["inu"] for row in rows} == {"n/a"}
    assert {row["not_measured"] for row in rows} == {f"inu: {MISSING['inu']}"}


def test_every_measure_is_described(written: list[Path]) -> None:
    described = json.loads(written[1].read_text())
    for name, measure in QUALITY_METRICS.items():
        assert described[name]["Description"].lower().startswith(measure.label.lower())


def texts(selection: ReferenceSelection) -> list[str]:
    return [text.get_text() for text in contact_sheet(selection, "T1w").axes[0].texts]


def test_sheet_names_all_and_says_in_or_out(selection: ReferenceSelection) -> None:
    words = texts(selection)
    assert words.count("IN") == 4
    assert words.count("OUT") == 1
    for ranked in selection.ranking:
        assert ranked.candidate.scan.name in words
        assert str(ranked.rank) in words
    assert any("unlike the others" in text.replace("\n", " ") for text in words)
    assert "1350" in words
    # Measured in no scan, so it has no column.
    assert "INU" not in words


def test_measure_that_one_scan_lacks_is_told() -> None:
    candidates = scans()
    candidates[1] = replace(candidates[1], quality=Quality(missing=dict.fromkeys(QUALITY_METRICS, "no air")))
    assert texts(select_group(candidates, 4)).count("n/a") == len(VALUES)


def test_pictures_show_slices_of_each_scan(selection: ReferenceSelection) -> None:
    images = contact_sheet(selection, "T1w").axes[0].get_images()
    assert len(images) == 3 * 5
    assert len({image.get_clim() for image in images}) == 1
    first = selection.ranking[0].candidate.scan
    shown = np.asarray(images[1].get_array())
    assert any(
        np.allclose(shown, first.volume[:, :, k].T / first.reference_intensity)
        for k in range(first.volume.shape[2])
    )


def test_intensity_unit_of_a_scan_cannot_be_seen(selection: ReferenceSelection) -> None:
    other = [
        replace(
            scan, volume=scan.volume * np.float32(2**n), reference_intensity=scan.reference_intensity * 2**n
        )
        for n, scan in enumerate(scans())
    ]
    np.testing.assert_array_equal(pixels(selection), pixels(select_group(other, 4)))


def test_pictures_are_of_one_scale() -> None:
    candidates = scans()
    candidates[0] = replace(
        candidates[0], volume=candidates[0].volume[:, 4:-4], region=candidates[0].region[:, 4:-4]
    )
    selection = select_group(candidates, 5)
    per_mm = set()
    for n, ranked in enumerate(selection.ranking):
        image = contact_sheet(selection, "T1w").axes[0].get_images()[3 * n]
        left, right, low, high = image.get_extent()
        x, y, _ = np.array(ranked.candidate.scan.volume.shape) * ranked.candidate.scan.zooms
        per_mm |= {round((right - left) / x, 9), round((low - high) / y, 9)}
    assert len(per_mm) == 1


def test_long_names_many_candidates_and_one_alone() -> None:
    candidates = [replace(scan, name="sub-" + "x" * 90) for scan in scans(7)]
    assert pixels(select_group(candidates, 3)).std() > 0
    assert pixels(select_group(scans(2)[:1], 1)).std() > 0


def test_folder_that_cannot_be_made(selection: ReferenceSelection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreate):
        write_reference_group(selection, tmp_path / "file" / "folder", "T1w")


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, bids_harmonize.report.training.reference_group; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
