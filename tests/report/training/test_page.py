"""The page about a training: complete, honest, self-contained, and safe whatever the names are."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from bids_harmonize.errors import CannotCreate
from bids_harmonize.measures.image_quality import format_significant
from bids_harmonize.model.card_entries import CheckpointRecord, HeldOutAgreement, StartingModel
from bids_harmonize.report.training import page as training_page
from bids_harmonize.report.training import reference_group
from bids_harmonize.report.training.charts import learning_curves
from bids_harmonize.report.training.examples import slice_of_pair
from bids_harmonize.report.training.page import write_training_report
from bids_harmonize.training.recipe import WITHOUT_BRAIN, Recipe
from bids_harmonize.training.reference_group import ReferenceSelection, select_group
from bids_harmonize.training.run import ExamplePair, TrainingRun
from bids_harmonize.training.schedule import Schedule
from tests.helpers.html_page import Page
from tests.helpers.toy_cards import toy_card, toy_data
from tests.helpers.toy_heads import ball_scan

NASTY = "<script>alert(\"1\")</script> & 'x'"


AGREEMENT = HeldOutAgreement(unaltered=26.0, augmented=21.5, rescaled=16.8)


def history(measured: bool = True) -> list[CheckpointRecord]:
    """Six checkpoints; the held-out scans agree best at the third."""
    records = [CheckpointRecord(step=250 * n, seconds=60 * n, loss=0.4 / n) for n in range(1, 7)]
    if not measured:
        return records
    return [
        replace(record, agreement=less_than_agreement(merit))
        for record, merit in zip(records, [-3.0, -1.0, 0.0, -0.5, -1.0, -2.0], strict=True)
    ]


def less_than_agreement(merit: float) -> HeldOutAgreement:
    return replace(AGREEMENT, unaltered=AGREEMENT.unaltered + merit, augmented=AGREEMENT.augmented + merit)


def finished(selection: ReferenceSelection, *, name: str = "T1w", **changes: Any) -> TrainingRun:
    """A training as `train_model` ends it, measured if a scan was held out; changes of it or of its card."""
    measured = bool(selection.held_out)
    of_run = {field.name for field in fields(TrainingRun)}
    card = toy_card(
        **{
            "body_parts": ["HEAD", "BRAIN"],
            "created": "2026-05-04",
            "version": "9.8.7",
            "data": toy_data(license="CC0", authors=["A. Author", "B. Author"]),
            "hardware": "CPU (abacus), 1 thread(s)",
            "steps": 1500,
            "duration_seconds": 4620,
            "agreement": AGREEMENT if measured else None,
            "history": history(measured),
            "simulated_heads": [],
        }
        | {key: value for key, value in changes.items() if key not in of_run}
    )
    run = TrainingRun(
        name=name,
        card=card,
        weights=b"",
        selection=selection,
        schedule=Schedule(steps=3000, patience=3 if measured else None, seed=42),
        recipe=Recipe(),
        parameters={"ToneCurve": "Random curves.", "LowBand": None},
    )
    return replace(run, **{key: value for key, value in changes.items() if key in of_run})


@pytest.fixture(scope="module")
def selection() -> ReferenceSelection:
    return select_group([ball_scan(seed) for seed in range(4)], 3)


@pytest.fixture(scope="module")
def everybody() -> ReferenceSelection:
    return select_group([ball_scan(seed) for seed in range(2)], 2)


def pair(name: str = "ball-0", **changes: Any) -> ExamplePair:
    scan = ball_scan(0)
    target = scan.volume / np.float32(scan.reference_intensity)
    augmented = (target**1.5 * 3).astype(np.float32)
    output = target * np.float32(1.02)
    return replace(
        ExamplePair(
            name=name,
            augmented=augmented,
            output=output,
            target=target,
            region=scan.region,
            zooms=scan.zooms,
            alterations=("ToneCurve", "something new"),
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def page(selection: ReferenceSelection, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read(
        write_training_report(finished(selection, examples=[pair()]), tmp_path_factory.mktemp("report"))
    )


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def pictures(page: Page) -> list[np.ndarray]:
    sources = [str(attributes["src"]).split(",", 1)[1] for attributes in page.all("img")]
    return [imread(io.BytesIO(base64.b64decode(source)), format="png") for source in sources]


def test_one_file_of_that_name(selection: ReferenceSelection, tmp_path: Path) -> None:
    path = write_training_report(finished(selection), tmp_path / "new")
    assert path == tmp_path / "new" / "report_T1w.html"
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert not {name for name, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
        assert not re.search(r"url\((?!#)", attributes.get("style") or "")


def test_pictures_are_described_and_the_page_fits_a_phone(page: Page) -> None:
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes["aria-label"] for attributes in page.all("svg"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert page.all("html") == [{"lang": "en"}]


def test_says_what_was_trained_and_how_good_it_is(page: Page, selection: ReferenceSelection) -> None:
    for phrase in (
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
        assert phrase in page.text
    for ranked in selection.ranking:
        assert ranked.candidate.scan.name in page.text
        assert ranked.reason in page.text
        assert format_significant(ranked.candidate.scan.reference_intensity) in page.text


def test_early_stopping_is_told_and_marked(page: Page, selection: ReferenceSelection) -> None:
    assert "Stopped after 1500 of at most 3000 steps" in page.text
    assert "The weights of step 750, the best" in page.text
    assert "weights of step 750 kept" in str(page.all("svg")[0]["aria-label"])
    run = finished(selection)
    figure = learning_curves(run.history, run.kept_checkpoint)
    for panel in figure.axes:
        assert [750, 750] in [list(line.get_xdata()) for line in panel.get_lines()]


def test_without_patience_the_last_weights_are_kept(selection: ReferenceSelection, tmp_path: Path) -> None:
    run = finished(selection, schedule=Schedule(steps=1500))
    text = read(write_training_report(run, tmp_path)).text
    assert "as many as asked for; the last weights were kept" in text
    assert "too good" not in text


def test_all_steps_with_patience(selection: ReferenceSelection, tmp_path: Path) -> None:
    run = finished(selection, schedule=Schedule(steps=1500, patience=9))
    text = read(write_training_report(run, tmp_path)).text
    assert "All 1500 steps" in text
    assert "step 750, the best on the held-out scans" in text


def test_a_model_that_was_not_measured_says_so(everybody: ReferenceSelection, tmp_path: Path) -> None:
    page = read(write_training_report(finished(everybody), tmp_path))
    assert "is not known" in page.text
    assert "--reference-size" in page.text
    assert "second scanner" not in page.text
    assert "in pictures" not in page.text
    assert not re.search(r"\d dB\b(?!:)", page.text.split("Glossary")[0])
    assert len(page.all("svg")) == 1


def test_model_that_does_not_help_is_not_praised(
    selection: ReferenceSelection, page: Page, tmp_path: Path
) -> None:
    bad = finished(selection, agreement=replace(AGREEMENT, augmented=16.0))
    phrase = "no better than bringing the median to the same value"
    assert phrase in read(write_training_report(bad, tmp_path)).text
    assert phrase not in page.text


def test_participants_on_both_sides_are_told(page: Page, tmp_path: Path) -> None:
    scans = [replace(ball_scan(seed), name=f"sub-1_run-{seed}_T1w") for seed in range(3)]
    selection = select_group(scans, 2)
    text = read(write_training_report(finished(selection), tmp_path)).text
    assert "other scans of sub-1 are in the reference group" in text
    assert "Not independent" not in page.text


def test_pictures_have_one_window_and_the_original_s_brightness(page: Page) -> None:
    augmented, output, target, sheet = pictures(page)
    shown = pair()
    plane = shown.target[:, :, int(np.argmax(shown.region.sum(axis=(0, 1))))]
    window = np.quantile(shown.target[shown.region], reference_group.WINDOW_QUANTILE)
    grey = np.clip(plane / window, 0, 1).T[::-1]
    np.testing.assert_allclose(target, grey, atol=1 / 128)
    np.testing.assert_allclose(output, np.clip(grey * 1.02, 0, 1), atol=1 / 64)
    assert augmented.shape == target.shape
    region = shown.region[:, :, int(np.argmax(shown.region.sum(axis=(0, 1))))].T[::-1]
    assert np.median(augmented[region]) == pytest.approx(np.median(target[region]), rel=0.1)
    assert sheet.shape[1] > 500
    assert "Another contrast: a random rising curve" in page.text
    assert "something new" in page.text


def test_agreement_of_pictures_does_not_depend_on_the_unit(
    selection: ReferenceSelection, tmp_path: Path
) -> None:
    first = pair()
    other = replace(first, augmented=first.augmented * np.float32(64))
    pages = [
        read(write_training_report(finished(selection, examples=[shown]), tmp_path))
        for shown in (first, other)
    ]
    assert pages[0].text == pages[1].text
    same = replace(first, output=first.target)
    run = finished(selection, examples=[same])
    assert "identical" in read(write_training_report(run, tmp_path)).text


@pytest.mark.parametrize(
    ("axis", "zooms"), [(2, (2.0, 2.0, 5.0)), (1, (1.0, 6.0, 1.0)), (0, (6.0, 3.0, 1.0))]
)
def test_slices_are_in_plane_and_of_true_proportions(axis: int, zooms: tuple[float, ...]) -> None:
    shown = pair(zooms=zooms)
    plane, ratio = slice_of_pair(shown.target, shown)
    across, upwards = (n for k, n in enumerate(shown.target.shape) if k != axis)
    assert plane.shape == (across, upwards)
    first, second = (zoom for k, zoom in enumerate(zooms) if k != axis)
    assert ratio == pytest.approx(across * first / (upwards * second))


def test_flat_pictures(selection: ReferenceSelection, tmp_path: Path) -> None:
    whole = pair()
    flat = {name: getattr(whole, name)[:, :, 11] for name in ("augmented", "output", "target", "region")}
    shown = replace(whole, zooms=(1.0, 3.0), **flat)
    page = read(write_training_report(finished(selection, examples=[shown]), tmp_path))
    assert pictures(page)[2].shape[:2] == (26, 24)
    assert page.all("img")[0]["style"] == f"aspect-ratio: {24 / (3 * 26):.4f}"


def test_names_may_be_anything(tmp_path: Path) -> None:
    scans = [replace(ball_scan(seed), name=f"{NASTY} {seed}") for seed in range(3)]
    odd = select_group(scans, 2)
    run = finished(
        odd,
        name="a b' & c",
        hardware=NASTY,
        simulated_heads=[NASTY],
        started_from=StartingModel(sha256=NASTY),
        data=toy_data(name=NASTY, license=NASTY, authors=NASTY, dataset_doi=NASTY),
        body_parts=[NASTY],
        examples=[pair(NASTY, alterations=[NASTY])],
    )
    page = read(write_training_report(run, tmp_path))
    assert not page.all("script")
    assert page.text.count(NASTY) > 8
    assert "--model path/to/'a b'\"'\"' & c.safetensors'" in page.text


def test_alterations_that_do_not_happen_are_not_listed(
    selection: ReferenceSelection, page: Page, tmp_path: Path
) -> None:
    stripped = training_page.ALTERATIONS["SkullStripped"]
    assert stripped in page.text
    recipe = Recipe(frequencies=WITHOUT_BRAIN)
    run = finished(selection, recipe=recipe, parameters={}, body_parts=["PROSTATE"], name="prostate-T2w")
    text = read(write_training_report(run, tmp_path)).text
    assert stripped not in text
    assert "brain:" not in text
    assert "middle of the field of view" in text


def test_every_alteration_of_training_has_words() -> None:
    assert {*Recipe().frequencies, *WITHOUT_BRAIN} <= set(training_page.ALTERATIONS)


def test_every_setting_has_words() -> None:
    assert set(Schedule(steps=1).to_json()) <= set(training_page.SCHEDULE)


def test_many_candidates_make_no_endless_picture(
    selection: ReferenceSelection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_page, "MAX_ROWS", 2)
    page = read(write_training_report(finished(selection), tmp_path))
    assert "The best 2 are shown" in page.text
    assert all(ranked.reason in page.text for ranked in selection.ranking)
    height, width = pictures(page)[-1].shape[:2]
    assert height < 0.6 * width


def test_folder_that_cannot_be_made(selection: ReferenceSelection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreate):
        write_training_report(finished(selection), tmp_path / "file" / "folder")


def test_same_training_same_page(selection: ReferenceSelection, tmp_path: Path) -> None:
    pages = [
        write_training_report(finished(selection, examples=[pair()]), tmp_path / str(n)).read_bytes()
        for n in range(2)
    ]
    assert pages[0] == pages[1]


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, bids_harmonize.report.training.page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
