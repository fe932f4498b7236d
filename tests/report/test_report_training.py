"""The page about a training: complete, honest, self-contained, and safe whatever the names are."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heads import ball_scan
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from pages import Page

from bids_harmonize.errors import CannotCreate
from bids_harmonize.pairs import WITHOUT_BRAIN, Recipe
from bids_harmonize.quality import in_digits
from bids_harmonize.reference import Choice, choose_group
from bids_harmonize.report import training
from bids_harmonize.report.page import STYLE
from bids_harmonize.report.training import Shown, write_training_report
from bids_harmonize.training import Schedule

NASTY = "<script>alert(\"1\")</script> & 'x'"


FIGURES = {
    "LeftOutUnalteredDecibel": 26.0,
    "LeftOutAlteredDecibel": 21.5,
    "LeftOutAlteredBeforeDecibel": 16.8,
}


def history(measured: bool = True) -> list[dict[str, float]]:
    """Six checkpoints; the people left out agree best at the third."""
    entries = [{"Step": 250 * n, "Seconds": 60 * n, "Loss": 0.4 / n} for n in range(1, 7)]
    if not measured:
        return entries
    merits = [-3.0, -1.0, 0.0, -0.5, -1.0, -2.0]
    return [
        entry
        | FIGURES
        | {key: FIGURES[key] + merit for key in ("LeftOutUnalteredDecibel", "LeftOutAlteredDecibel")}
        for entry, merit in zip(entries, merits, strict=True)
    ]


def card(choice: Choice, **changes: Any) -> dict[str, Any]:
    """As `learn` writes it; measured where somebody was left out."""
    measured = bool(choice.left_out)
    return {
        "Modality": "T1w",
        "BodyParts": ["HEAD", "BRAIN"],
        "OutputScale": {"Unit": 1000.0, "Description": "the median of white matter is 1000"},
        "Created": "2026-05-04",
        "Version": "9.8.7",
        "Data": {
            "Name": "Balls",
            "License": "CC0",
            "Authors": ["A. Author", "B. Author"],
            "ReferenceGroup": [scan.name for scan in choice.group],
            "LeftOut": [scan.name for scan in choice.left_out],
        },
        "Alterations": asdict(Recipe()) | {"Parameters": {"ToneCurve": "Random curves.", "LowBand": None}},
        "Hardware": "CPU (abacus), 1 thread(s)",
        "Schedule": asdict(Schedule(steps=3000, patience=3 if measured else None, seed=42)),
        "Steps": 1500,
        "DurationSeconds": 4620,
        "Figures": FIGURES if measured else {},
        "History": history(measured),
        "SimulatedHeads": [],
        "StartedFrom": None,
        "SHA256": "ab" * 32,
    } | changes


@pytest.fixture(scope="module")
def choice() -> Choice:
    return choose_group([ball_scan(seed) for seed in range(4)], 3)


@pytest.fixture(scope="module")
def everybody() -> Choice:
    return choose_group([ball_scan(seed) for seed in range(2)], 2)


def pair(name: str = "ball-0", **changes: Any) -> Shown:
    scan = ball_scan(0)
    original = scan.volume / np.float32(scan.level)
    altered = (original**1.5 * 3).astype(np.float32)
    output = original * np.float32(1.02)
    return replace(
        Shown(
            name=name,
            altered=altered,
            output=output,
            original=original,
            region=scan.region,
            zooms=scan.zooms,
            alterations=("ToneCurve", "something new"),
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def page(choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read(
        write_training_report(tmp_path_factory.mktemp("report"), "T1w", card(choice), choice, [pair()])
    )


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def pictures(page: Page) -> list[np.ndarray]:
    sources = [str(attributes["src"]).split(",", 1)[1] for attributes in page.all("img")]
    return [imread(io.BytesIO(base64.b64decode(source)), format="png") for source in sources]


def test_one_file_of_that_name(choice: Choice, tmp_path: Path) -> None:
    path = write_training_report(tmp_path / "new", "T1w", card(choice), choice, [])
    assert path == tmp_path / "new" / "report_T1w.html"
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert not {name for name, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
        assert not re.search(r"url\((?!#)", attributes.get("style") or "")
    for style in (STYLE, training.STYLE):
        assert "@import" not in style
        assert "url(" not in style


def test_pictures_are_described_and_the_page_fits_a_phone(page: Page) -> None:
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes["aria-label"] for attributes in page.all("svg"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert page.all("html") == [{"lang": "en"}]


def test_says_what_was_trained_and_how_good_it_is(page: Page, choice: Choice) -> None:
    for told in (
        "T1w scans of the head",
        "3 scans of the dataset “Balls”",
        "licence: CC0",
        "16.8 dB",
        "21.5 dB",
        "26.0 dB",
        # 10 ** (-21.5 / 20)
        "8.4 %",
        "--model path/to/T1w.safetensors",
        "77 min",
        "CPU (abacus)",
        "9.8.7",
        "42",
        "ab" * 32,
        "A. Author; B. Author",
    ):
        assert told in page.text
    for verdict in choice.verdicts:
        assert verdict.judgement.scan.name in page.text
        assert verdict.reason in page.text
        assert in_digits(verdict.judgement.scan.level) in page.text


def test_early_stopping_is_told_and_marked(page: Page, choice: Choice) -> None:
    assert "Stopped after 1500 of at most 3000 steps" in page.text
    assert "The weights of step 750, the best" in page.text
    assert "weights of step 750 kept" in str(page.all("svg")[0]["aria-label"])
    known = card(choice)
    figure = training._curves(known["History"], training._kept(known))
    for panel in figure.axes:
        assert [750, 750] in [list(line.get_xdata()) for line in panel.get_lines()]


def test_without_patience_the_last_weights_are_kept(choice: Choice, tmp_path: Path) -> None:
    known = card(choice, Schedule=asdict(Schedule(steps=1500)))
    text = read(write_training_report(tmp_path, "T1w", known, choice, [])).text
    assert "as many as asked for; the last weights were kept" in text
    assert "too good" not in text


def test_all_steps_with_patience(choice: Choice, tmp_path: Path) -> None:
    known = card(choice, Schedule=asdict(Schedule(steps=1500, patience=9)))
    text = read(write_training_report(tmp_path, "T1w", known, choice, [])).text
    assert "All 1500 steps" in text
    assert "step 750, the best on the scans left out" in text


def test_nobody_left_out_is_said_and_what_to_do(everybody: Choice, tmp_path: Path) -> None:
    page = read(write_training_report(tmp_path, "T1w", card(everybody), everybody, []))
    assert "is not known" in page.text
    assert "--reference-size" in page.text
    assert "second scanner" not in page.text
    assert "in pictures" not in page.text
    assert not re.search(r"\d dB\b(?!:)", page.text.split("Words used here")[0])
    assert len(page.all("svg")) == 1


def test_model_that_does_not_help_is_not_praised(choice: Choice, page: Page, tmp_path: Path) -> None:
    bad = card(choice, Figures=FIGURES | {"LeftOutAlteredDecibel": 16.0})
    told = "no better than bringing the median to the same value"
    assert told in read(write_training_report(tmp_path, "T1w", bad, choice, [])).text
    assert told not in page.text


def test_people_on_both_sides_are_told(choice: Choice, page: Page, tmp_path: Path) -> None:
    data = card(choice)["Data"]
    data |= {"ReferenceGroup": ["sub-1_run-1_T1w", "sub-2_T1w"], "LeftOut": ["sub-1_run-2_T1w"]}
    text = read(write_training_report(tmp_path, "T1w", card(choice, Data=data), choice, [])).text
    assert "other scans of sub-1 are in the reference group" in text
    assert "Not independent" not in page.text


def test_pictures_have_one_window_and_the_original_s_brightness(page: Page) -> None:
    altered, output, original, sheet = pictures(page)
    shown = pair()
    plane = shown.original[:, :, int(np.argmax(shown.region.sum(axis=(0, 1))))]
    window = np.quantile(shown.original[shown.region], training.BRIGHTEST)
    grey = np.clip(plane / window, 0, 1).T[::-1]
    np.testing.assert_allclose(original, grey, atol=1 / 128)
    np.testing.assert_allclose(output, np.clip(grey * 1.02, 0, 1), atol=1 / 64)
    assert altered.shape == original.shape
    region = shown.region[:, :, int(np.argmax(shown.region.sum(axis=(0, 1))))].T[::-1]
    assert np.median(altered[region]) == pytest.approx(np.median(original[region]), rel=0.1)
    assert sheet.shape[1] > 500
    assert "Another contrast: a random rising curve" in page.text
    assert "something new" in page.text


def test_agreement_of_pictures_does_not_depend_on_the_unit(choice: Choice, tmp_path: Path) -> None:
    first = pair()
    other = replace(first, altered=first.altered * np.float32(64))
    pages = [
        read(write_training_report(tmp_path, "T1w", card(choice), choice, [one])) for one in (first, other)
    ]
    assert pages[0].text == pages[1].text
    same = replace(first, output=first.original)
    assert "identical" in read(write_training_report(tmp_path, "T1w", card(choice), choice, [same])).text


@pytest.mark.parametrize(
    ("axis", "zooms"), [(2, (2.0, 2.0, 5.0)), (1, (1.0, 6.0, 1.0)), (0, (6.0, 3.0, 1.0))]
)
def test_slices_are_in_plane_and_of_true_proportions(axis: int, zooms: tuple[float, ...]) -> None:
    shown = pair(zooms=zooms)
    plane, ratio = training._plane(shown.original, shown)
    across, upwards = (n for k, n in enumerate(shown.original.shape) if k != axis)
    assert plane.shape == (across, upwards)
    first, second = (zoom for k, zoom in enumerate(zooms) if k != axis)
    assert ratio == pytest.approx(across * first / (upwards * second))


def test_flat_pictures(choice: Choice, tmp_path: Path) -> None:
    whole = pair()
    flat = {name: getattr(whole, name)[:, :, 11] for name in ("altered", "output", "original", "region")}
    shown = replace(whole, zooms=(1.0, 3.0), **flat)
    page = read(write_training_report(tmp_path, "T1w", card(choice), choice, [shown]))
    assert pictures(page)[2].shape[:2] == (26, 24)
    assert page.all("img")[0]["style"] == f"aspect-ratio: {24 / (3 * 26):.4f}"


def test_names_may_be_anything(tmp_path: Path) -> None:
    scans = [replace(ball_scan(seed), name=f"{NASTY} {seed}") for seed in range(3)]
    odd = choose_group(scans, 2)
    known = card(odd, Hardware=NASTY, SimulatedHeads=[NASTY], StartedFrom={"SHA256": NASTY})
    known["Data"] |= {"Name": NASTY, "License": NASTY, "Authors": NASTY, "DatasetDOI": NASTY}
    known["BodyParts"] = [NASTY]
    shown = pair(NASTY, alterations=[NASTY])
    page = read(write_training_report(tmp_path, "a b' & c", known, odd, [shown]))
    assert not page.all("script")
    assert page.text.count(NASTY) > 8
    assert "--model path/to/'a b'\"'\"' & c.safetensors'" in page.text


def test_alterations_that_do_not_happen_are_not_listed(choice: Choice, page: Page, tmp_path: Path) -> None:
    stripped = training.ALTERATIONS["SkullStripped"]
    assert stripped in page.text
    recipe = asdict(Recipe(frequencies=WITHOUT_BRAIN)) | {"Parameters": {}}
    known = card(choice, Alterations=recipe, BodyParts=["PROSTATE"])
    text = read(write_training_report(tmp_path, "prostate-T2w", known, choice, [])).text
    assert stripped not in text
    assert "brain:" not in text
    assert "middle of the field of view" in text


def test_every_alteration_of_training_has_words() -> None:
    assert {*Recipe().frequencies, *WITHOUT_BRAIN} <= set(training.ALTERATIONS)


def test_every_setting_has_words() -> None:
    assert set(asdict(Schedule(steps=1))) <= set(training.SCHEDULE)


def test_many_candidates_make_no_endless_picture(
    choice: Choice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "MOST_ROWS", 2)
    page = read(write_training_report(tmp_path, "T1w", card(choice), choice, []))
    assert "The best 2 are shown" in page.text
    assert all(verdict.reason in page.text for verdict in choice.verdicts)
    height, width = pictures(page)[-1].shape[:2]
    assert height < 0.6 * width


@given(st.floats(0, 1e6))
def test_durations_are_in_units_that_people_use(seconds: float) -> None:
    numbers = [int(number) for number in re.findall(r"\d+", training._duration(seconds))]
    *before, unit = training._duration(seconds).split()
    scale = {"s": 1, "min": 60}[unit]
    total = sum(n * factor for n, factor in zip(reversed(numbers), (scale, 3600), strict=False))
    assert total == pytest.approx(seconds, abs=scale / 2)
    assert ("h" in before) == (len(numbers) == 2)


def test_folder_that_cannot_be_made(choice: Choice, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreate):
        write_training_report(tmp_path / "file" / "folder", "T1w", card(choice), choice, [])


def test_same_training_same_page(choice: Choice, tmp_path: Path) -> None:
    pages = [
        write_training_report(tmp_path / str(n), "T1w", card(choice), choice, [pair()]).read_bytes()
        for n in range(2)
    ]
    assert pages[0] == pages[1]


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, bids_harmonize.report.training; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
