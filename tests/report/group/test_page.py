"""The group's table and page: complete, honest, safe whatever the names are, and small."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_harmonize.bids.logs import write_crash
from bids_harmonize.bids.run import Run
from bids_harmonize.commands.group import write_group_reports
from bids_harmonize.errors import BadData, UsageError
from bids_harmonize.report.components.numbers import SPACE
from bids_harmonize.report.group.site_sections import MAX_SITES
from tests.helpers.group_results import REFERENCE, SITES, intensities, record, write_group, write_sidecar
from tests.helpers.html_page import Page

NASTY = "<script>alert(\"1\")</script> & 'x'"
BEFORE = SITES["north"]


def written(folder: Path, **settings: Any) -> tuple[list[dict[str, str]], Page]:
    """The table and the page of T1w scans."""
    (report,) = write_group_reports(folder / "out", folder, **settings)
    with report.table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == report.scans
    return rows, Page(report.page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 participants of three sites; an outlier, one passed through, one that failed, one with a warning."""
    folder = tmp_path_factory.mktemp("group")
    out = write_group(folder, 24)
    write_sidecar(out, "sub-0003_T1w", record(intensities(BEFORE, 1.5 * REFERENCE, 3)))
    (out / "sub-0004/anat/sub-0004_desc-harmonized_T1w.json").unlink()
    write_sidecar(out, "sub-0004_T1w", record(intensities(BEFORE, None, 4), harmonized=False))
    warned = record(intensities(BEFORE, REFERENCE, 6), Warnings=["2 negative voxels were set to 0"])
    write_sidecar(out, "sub-0006_T1w", warned)
    for label, suffix in (("0099", "T1w"), ("0005", "T1w"), ("0098", "T2w")):
        path = folder / f"sub-{label}" / "anat" / f"sub-{label}_{suffix}.nii.gz"
        run = Run(dataset=folder, path=path, entities={"sub": label}, suffix=suffix, modality=suffix)
        write_crash(out, run, f"{path.name} is empty (0 bytes)\n\nTraceback")
    for label in ("0003", "0006"):
        (out / f"sub-{label}.html").touch()
    return folder


def test_the_table_has_what_was_measured(group: Path) -> None:
    rows, _ = written(group)
    dictionary = json.loads((group / "out/group_T1w.json").read_text())
    assert list(dictionary) == list(rows[0])
    assert all(entry["Description"] for entry in dictionary.values())
    by_participant = {row["participant_id"]: row for row in rows}
    assert {row["site"] for row in rows} == set(SITES)
    outlier, passed, plain = (by_participant[f"sub-000{n}"] for n in (3, 4, 7))
    assert [row["outlier"] for row in (outlier, passed, plain)] == ["1", "n/a", "0"]
    assert outlier["outlier_reasons"].startswith("intensities unlike the other scans' (z +")
    assert "bright white matter (z +" in outlier["outlier_reasons"]
    assert float(outlier["white_matter"]) == 1500
    assert float(outlier["grey_white_ratio"]) == pytest.approx(0.7)
    assert float(plain["grey_white_ratio_before"]) == pytest.approx(5 / 9, rel=0.05)
    for name in ("white_matter", "csf", "grey_white_ratio", "distance_before", "distance_after"):
        assert passed[name] == "n/a"
    assert float(plain["distance_after"]) < float(plain["distance_before"]) < 0.5
    assert sum(row["outlier"] == "1" for row in rows) == 1


def test_the_page_answers_first(group: Path) -> None:
    _, page = written(group)
    text = " ".join(page.text.split())
    assert "T1w: is the site effect gone?" in text
    assert "24 scans of 24 participants" in text
    assert "Sites are defined by the column “site” of participants.tsv" in text
    assert text.index("The intensities of two sites differ by") < text.index("Scans to look at")
    found = {tag for tag, _ in page.tags}
    assert {"h1", "h2", "table", "svg"} <= found
    assert all(svg["aria-label"] for svg in page.all("svg"))
    # Nothing comes from elsewhere.
    for tag in ("link", "iframe", "img"):
        assert page.all(tag) == []
    assert all("src" not in attributes for _, attributes in page.tags)


def test_scans_to_look_at_are_named_with_the_reason(group: Path) -> None:
    _, page = written(group)
    text = " ".join(page.text.split())
    listed = text[text.index("Scans to look at Scan") if "Scans to look at Scan" in text else 0 :]
    for phrase in (
        "sub-0099_T1w",
        "failed: sub-0099_T1w.nii.gz is empty (0 bytes)",
        "sub-0004_T1w",
        "passed through, not harmonized; it is unlike what the model T1w is meant for",
        "intensities unlike the other scans'",
        "2 negative voxels were set to 0",
    ):
        assert phrase in listed
    # It failed once, and was harmonized since; the other is of another suffix.
    assert "sub-0005_T1w.nii.gz is empty" not in text
    assert "sub-0098" not in text


def test_only_pages_that_are_there_are_linked(group: Path) -> None:
    _, page = written(group)
    assert {link["href"] for link in page.all("a")} == {"sub-0003.html", "sub-0006.html"}


def test_every_scan_is_in_the_table_of_the_page_with_what_to_filter_by(group: Path) -> None:
    _, page = written(group)
    rows = [attributes for attributes in page.all("tr") if "data-site" in attributes]
    assert len(rows) == 25
    kinds = [row["data-kinds"] for row in rows]
    assert sorted(filter(None, kinds)) == ["failed", "outlier", "passed unlike", "warned"]
    assert {row["data-site"] for row in rows} == {*SITES, ""}
    assert {option["value"] for option in page.all("option")} >= {*SITES, "outlier", "failed"}


def test_the_classifier_is_near_1_before_and_chance_is_named(group: Path) -> None:
    _, page = written(group)
    text = page.text
    section = text[text.index("Can a classifier tell") : text.index("White matter, grey matter, CSF")]
    assert "Before100 %" in section.replace("\n", "")
    assert "95 % interval" in section and "Chance" in section
    assert "Tested on 23 participants of 3 sites" in section


def test_too_few_participants_are_warned_of_and_given_no_number(tmp_path: Path) -> None:
    write_group(tmp_path, 12)
    _, page = written(tmp_path)
    section = page.text[
        page.text.index("Can a classifier tell") : page.text.index("White matter, grey matter")
    ]
    assert "Not computed: it takes at least two sites with 5 participants each" in section
    assert "(north: 4, south: 4, west: 4)" in section
    assert "%" not in section
    assert "Site found by a classifier" not in page.text


def test_sites_that_were_made_alike_are_nearer_and_harder_to_tell(tmp_path: Path) -> None:
    figures = {}
    for left in (0.0, 1.0):
        folder = tmp_path / str(left)
        folder.mkdir()
        write_group(folder, 60, left=left)
        _, page = written(folder)
        figures[left] = page.text
    assert "not significantly better than chance" in figures[0.0]
    assert "The site effect is not gone" in figures[1.0]


def test_one_site_has_no_site_effect(tmp_path: Path) -> None:
    write_group(tmp_path, 8, sites={"only": BEFORE})
    _, page = written(tmp_path)
    assert "no site effect to look at" in page.text
    assert "Distances between sites" not in page.text


@pytest.mark.filterwarnings("error")
def test_one_scan_alone(tmp_path: Path) -> None:
    write_group(tmp_path, 1)
    rows, page = written(tmp_path)
    assert rows[0]["outlier"] == "0"
    assert "1 scan of 1 participant" in page.text


@pytest.mark.filterwarnings("error")
def test_scans_of_an_older_release_are_listed_and_not_compared(tmp_path: Path) -> None:
    for n in range(3):
        write_sidecar(tmp_path / "out", f"sub-{n}_T1w", record(None))
    rows, page = written(tmp_path)
    assert [row["distance_after"] for row in rows] == ["n/a"] * 3
    assert "No scan here can be compared" in page.text
    assert "3 scans were harmonized by a release that did not measure intensities" in page.text


@pytest.mark.filterwarnings("error")
def test_skull_stripped_and_whole_heads_are_compared_inside_the_brain(tmp_path: Path) -> None:
    out = write_group(tmp_path, 9)
    rng_curves = {when: list(np.linspace(0, 5000, 49)) for when in ("Before", "After")}
    for n in (0, 1):
        # Whatever is outside the brain counts no more.
        described = intensities(BEFORE, REFERENCE, n, SkullStripped=n == 0, Foreground=rng_curves)
        write_sidecar(out, f"sub-000{n}_T1w", record(described))
    described = intensities(BEFORE, REFERENCE, 2, Brain=None, Tissues=None, NoBrain="no brain was found")
    write_sidecar(out, "sub-0002_T1w", record(described))
    rows, page = written(tmp_path)
    assert "Scans are compared in the brain." in page.text
    assert "1 scan could not be compared, because no brain was found" in page.text
    assert rows[2]["distance_after"] == "n/a"
    assert max(float(row["distance_after"]) for row in rows if row["distance_after"] != "n/a") < 0.1


@pytest.mark.filterwarnings("error")
def test_without_tissues_the_page_says_so(tmp_path: Path) -> None:
    for n in range(8):
        described = intensities(BEFORE, REFERENCE, n, Brain=None, Tissues=None, NoBrain="no head")
        write_sidecar(tmp_path / "out", f"sub-{n}_T1w", record(described))
    rows, page = written(tmp_path)
    assert rows[0]["white_matter"] == "n/a"
    assert "no brain was found in any scan" in page.text
    assert "Scans are compared in the foreground." in page.text
    assert rows[0]["distance_after"] != "n/a"


def test_sites_that_came_no_nearer_are_told(tmp_path: Path) -> None:
    write_group(tmp_path, 12, left=2)
    _, page = written(tmp_path)
    assert "Harmonization brought the sites no closer together." in page.text


@pytest.mark.filterwarnings("error")
def test_scans_of_no_known_site_are_compared_with_each_other(tmp_path: Path) -> None:
    out = write_group(tmp_path, 8)
    for n in range(8):
        (out / f"sub-000{n}" / "anat" / f"sub-000{n}_desc-harmonized_T1w.json").unlink()
        content = record(intensities(BEFORE, REFERENCE, n))
        write_sidecar(out, f"sub-000{n}_T1w", content, **({} if n else {"Manufacturer": "Siemens"}))
    (tmp_path / "participants.tsv").unlink()
    write_sidecar(out, "sub-0000_T1w", record(None), Manufacturer="Siemens")
    rows, page = written(tmp_path)
    assert {row["site"] for row in rows} == {"Siemens", "n/a"}
    assert "he sidecars of 7 scans say nothing of the scanner" in page.text
    assert "There are no two sites here" in page.text


def test_names_are_text(tmp_path: Path) -> None:
    out = write_group(tmp_path, 6, sites={NASTY: BEFORE})
    write_sidecar(out, "sub-0000_T1w", record(intensities(BEFORE, REFERENCE, 0), Warnings=[NASTY]))
    rows, page = written(tmp_path)
    assert rows[0]["site"] == NASTY
    assert page.text.count(NASTY) >= 8
    assert len(page.all("script")) == 1


def test_many_sites_are_cut_short_and_it_is_said(tmp_path: Path) -> None:
    write_group(tmp_path, 60, sites={f"site{n:02d}": BEFORE for n in range(MAX_SITES + 10)})
    _, page = written(tmp_path)
    assert f"The {MAX_SITES} sites with most scans; 10 more are left out." in page.text
    assert len([row for row in page.all("tr") if "data-site" in row]) == 60


@pytest.mark.process
def test_a_thousand_scans_make_a_small_page(tmp_path: Path) -> None:
    write_group(tmp_path, 1000)
    _, page = written(tmp_path)
    assert (tmp_path / "out/group_T1w.html").stat().st_size < 10e6
    assert "1000 scans of 1000 participants" in page.text
    assert len([row for row in page.all("tr") if "data-site" in row]) == 1000


def test_nothing_is_written_when_only_asked_what_would_be(tmp_path: Path) -> None:
    out = write_group(tmp_path, 3)
    (report,) = write_group_reports(out, tmp_path, write=False)
    assert (report.table.name, report.page.name, report.scans) == ("group_T1w.tsv", "group_T1w.html", 3)
    assert not report.table.exists() and not report.page.exists()


def test_the_column_asked_for_must_be_there(group: Path) -> None:
    with pytest.raises(UsageError, match="no column 'hospital'"):
        write_group_reports(group / "out", group, column="hospital")


def test_a_sidecar_of_another_program_is_told(tmp_path: Path) -> None:
    out = write_group(tmp_path, 1)
    next(out.rglob("*.json")).write_text("{}")
    with pytest.raises(BadData, match="was not written by this program"):
        write_group_reports(out, tmp_path)


def test_the_same_sidecars_give_the_same_page(group: Path) -> None:
    pages = []
    for _ in range(2):
        (report,) = write_group_reports(group / "out", group)
        pages.append(report.page.read_bytes())
    assert pages[0] == pages[1]
    assert SPACE in pages[0].decode()
