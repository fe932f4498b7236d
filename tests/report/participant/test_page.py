"""The page about a participant: complete, honest, of true orientation, and no more drawn than need be.

It is one file because nearly all of its tests use the same small derivatives (`Study`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from numpy.typing import NDArray

from bids_harmonize.commands import run_context
from bids_harmonize.errors import BadData
from bids_harmonize.files import atomic
from bids_harmonize.files.checksum import file_sha256
from bids_harmonize.imaging.foreground import Box
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.masks import tissue_mask
from bids_harmonize.measures.histogram import ReferenceIntensities, tissue_histogram
from bids_harmonize.model.bilateral_grid import KNOT_STEP, KNOTS
from bids_harmonize.model.card import ModelCard
from bids_harmonize.model.transform import Transform
from bids_harmonize.report.components.pictures import matplotlib_cache_dir
from bids_harmonize.report.participant import build, figures, manifest
from bids_harmonize.report.participant.build import write_participant_report
from bids_harmonize.report.participant.tone_curves import (
    MIN_VOXELS_PER_BIN,
    curves_of_cells,
    curves_of_voxels,
)
from bids_harmonize.results.reading import participants_with_results
from tests.helpers.bids_validation import problems
from tests.helpers.html_page import Page
from tests.helpers.toy_cards import toy_card, toy_data
from tests.helpers.toy_datasets import (
    counts,
    files,
    harmonize,
    head,
    image_of,
    snapshot,
    write_dataset,
    write_scan,
)

SHAPE, ZOOMS = (20, 24, 16), (3.0, 2.0, 6.0)
SHA256 = "ab" * 32
PLANES = ("axial", "coronal", "sagittal")
PICTURES = {f"{what}{plane.capitalize()}" for what in ("before", "after", "edit") for plane in PLANES}


@dataclass(frozen=True, kw_only=True)
class Study:
    """A dataset and its derivatives, made by hand."""

    raw: Path
    derivatives: Path

    def add(
        self,
        before: NDArray[np.float32],
        after: NDArray[np.float32],
        *,
        label: str = "01",
        name: str = "T1w",
        zooms: tuple[float, ...] = ZOOMS,
        codes: int = 1,
        turned: NDArray[Any] | None = None,
        **record: Any,
    ) -> Path:
        """Write a scan and its derivative; the sidecar of the derivative."""
        images = [image_of(voxels, zooms, qform=codes, sform=codes) for voxels in (before, after)]
        if turned is not None:
            images = [image.as_reoriented(turned) for image in images]
        source = write_scan(self.raw, f"sub-{label}_{name}.nii.gz", images[0])
        desc = "unharmonized" if record.get("Harmonized") is False else "harmonized"
        *entities, suffix = name.split("_")
        stem = "_".join([f"sub-{label}", *entities, f"desc-{desc}", suffix])
        image = write_scan(self.derivatives, f"{stem}.nii.gz", images[1])
        measured = {
            "InputSHA256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "Edit": edit(),
            "OutOfDistribution": {"Checked": True, "Flagged": False, "Score": 0.0123, "Threshold": 0.456},
        }
        content = {
            "Sources": [f"bids:raw:{source.relative_to(self.raw).as_posix()}"],
            "EchoTime": 0.00321,
            "BidsHarmonize": RECORD | measured | record,
        }
        path = image.with_name(f"{stem}.json")
        path.write_text(json.dumps(content))
        return path

    def page(self, label: str = "01", cards: Mapping[str, ModelCard] | None = None) -> Page:
        path = write_participant_report(self.derivatives, label, self.raw, cards or {})
        return Page(path.read_text(encoding="utf-8"))

    def figure(self, what: str, ending: str = "png", name: str = "T1w") -> Path:
        *entities, suffix = name.split("_")
        stem = "_".join(["sub-01", *entities, f"desc-{what}", suffix])
        return self.derivatives / "sub-01/figures" / f"{stem}.{ending}"

    def picture(self, what: str) -> NDArray[np.float32]:
        """A picture as it lies on the page: rows from above, columns from the left."""
        return imread(self.figure(what))


def edit(**gain: float) -> dict[str, Any]:
    return {
        "Gain": {
            "Median": 2.0,
            "Percentile1": 0.71,
            "Percentile99": 1.53,
            "Minimum": 0.42,
            "Maximum": 1.87,
        }
        | gain,
        "OrderViolations": {"Pairs": 7, "Edges": 1_000_000},
        "DistanceToTrainingDistribution": 1.34,
    }


RECORD = {
    "Version": "9.8.7",
    "Command": ["run.py", "/my data", "/out", "participant"],
    "Model": "T1w-head",
    "ModelSHA256": SHA256,
    "Device": "cpu",
    "TorchVersion": "2.13.0+cpu",
    "Threads": 3,
    "Seed": 11,
    "Harmonized": True,
    "OutputScale": {"Unit": 1000.0, "Description": "arbitrary; white matter is 1000"},
    "Warnings": [],
    "ElapsedSeconds": 4.5,
}
CARD = toy_card(
    created="2026-05-04", data=toy_data(dataset_doi="10.1/balls", reference_group=["a", "b", "c"])
)


def brain(seed: int = 0) -> NDArray[np.float32]:
    return head(seed, SHAPE).astype(np.float32)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(raw=write_dataset(tmp_path / "raw"), derivatives=tmp_path / "out")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Page]:
    """Two scans, one with a warning and one that was passed through, and the page about them."""
    folder = tmp_path_factory.mktemp("study")
    study = Study(raw=write_dataset(folder / "raw"), derivatives=folder / "out")
    study.add(brain(), 2 * brain(), Warnings=["it has few slices"])
    study.add(
        brain(1),
        brain(1),
        name="ses-b_T2w",
        Harmonized=False,
        Warnings=["it is unlike what the model T2w-head is meant for"],
        OutputScale=None,
    )
    return study, study.page(cards={SHA256: CARD})


def sections(page: Page) -> list[str]:
    """Text of the header, and of each scan with what follows it."""
    return re.split(r"(?=sub-01_(?:ses-b_)?T[12]w\s+(?=It has|Not harmonized: ))", page.text)


# What is on the page


def test_nothing_is_loaded_but_the_figures_and_all_are_there(shown: tuple[Study, Page]) -> None:
    study, page = shown
    assert not {name for name, _ in page.tags} & {"link", "iframe", "object", "base"}
    sources = [str(attributes["src"]) for attributes in page.all("img")]
    assert len(sources) == len(PICTURES) + len(PLANES)
    for source in sources:
        assert source.startswith("sub-01/figures/")
        assert (study.derivatives / source).is_file()
    assert not any("src" in attributes for attributes in page.all("script"))
    for link in page.all("a"):
        assert str(link["href"]) in ("#sub-01_T1w", "#sub-01_ses-b_T2w")


def test_all_is_described_and_named_once(shown: tuple[Study, Page]) -> None:
    _, page = shown
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes["aria-label"] for attributes in page.all("svg"))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    # Glyphs of both figures have the same names and the same shapes.
    own = [name for name in names if not str(name).startswith("DejaVu")]
    assert len(own) == len(set(own))
    assert {"sub-01_T1w", "sub-01_ses-b_T2w"} <= set(own)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_warnings_come_first_and_numbers_are_in_words(shown: tuple[Study, Page]) -> None:
    header, first, second = sections(shown[1])
    assert "2 scans: 1 harmonized, 1 passed through unchanged; 2 scans with warnings" in header
    assert "passed through unchanged, 1 warning" in header
    assert first.split("\n")[:2] == ["sub-01_T1w", "It has few slices."]
    for phrase in (
        "multiplied by 2 (median",
        "white matter is 1000",
        "98 % of tissue changed by −29 % to +53 %; the extremes are −58 % and +87 %",
        "7 of 1,000,000 edges",
        "(7 in a million)",
        "lie 1.3 standard deviations",
        "score 0.012, threshold 0.46",
    ):
        assert phrase in first
    assert second.split("\n")[1].startswith("Not harmonized: it is unlike what the model T2w-head")
    assert "multiplied" not in second


def test_details_name_files_versions_command_and_model(shown: tuple[Study, Page]) -> None:
    details = sections(shown[1])[1]
    for phrase in (
        "sub-01_desc-harmonized_T1w.nii.gz",
        "bids:raw:sub-01/anat/sub-01_T1w.nii.gz",
        "9.8.7",
        "run.py '/my data' /out participant",
        SHA256,
        "2026-05-04",
        "2.13.0+cpu",
        "0.00321",
        "20 × 24 × 16",
    ):
        assert phrase in details


def test_methods_have_their_references_and_each_model_once(study: Study) -> None:
    for name in ("run-1_T1w", "run-2_T1w"):
        study.add(brain(), 2 * brain(), name=name)
    text = study.page(cards={SHA256: CARD}).text.split("Methods")[1]
    assert text.count("The model T1w-head") == 1
    assert "reference group of 3 scans of the dataset “Balls” (10.1/balls)" in text
    assert "bids-harmonize 9.8.7" in text
    for cited in re.findall(r"[A-Z][a-z]+ et al\. \d{4}", text.split("References")[0]):
        assert re.search(rf"{cited.split()[0]} .*{cited[-4:]}", text.split("References")[1])
    assert "was used" in study.page().text


def test_only_what_was_passed_through_needs_no_methods(study: Study) -> None:
    study.add(brain(), brain(), Harmonized=False, Warnings=["it is unlike the others"])
    page = study.page()
    assert "Methods" not in page.text
    assert {path.name.split("desc-")[1] for path in study.figure("x").parent.iterdir()} == {
        "figures_T1w.json",
        "thumbnail_T1w.webp",
        *(f"before{plane.capitalize()}_T1w.png" for plane in PLANES),
    }


def test_only_the_first_warning_says_why_a_scan_was_passed_through(study: Study) -> None:
    study.add(brain(), brain(), Harmonized=False, Warnings=["it is unlike the others", "two keys disagree"])
    lines = sections(study.page())[1].split("\n")
    assert lines[1:3] == [
        "Not harmonized: it is unlike the others. It is written as it was.",
        "Two keys disagree.",
    ]


def test_names_and_warnings_may_be_anything(study: Study) -> None:
    nasty = "<script>alert(\"1\")</script> & 'x'"
    study.add(brain(), 2 * brain(), Warnings=[nasty], Model=nasty, Command=[nasty])
    page = study.page()
    assert len(page.all("script")) == 1
    assert page.text.count("alert") > 2


def test_older_sidecars_lack_much(study: Study) -> None:
    sidecar = study.add(brain(), 2 * brain())
    content = json.loads(sidecar.read_text())
    content["BidsHarmonize"] = {"Version": "0.0.1", "InputSHA256": content["BidsHarmonize"]["InputSHA256"]}
    sidecar.write_text(json.dumps(content))
    page = study.page()
    assert "not recorded" in page.text
    assert len(page.all("img")) == len(PICTURES)


# Pictures


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPI", "PSR", "SAL"])
def test_left_is_at_the_left_however_the_image_lies(study: Study, axes: str) -> None:
    voxels = brain()
    middle = tuple(n // 2 for n in SHAPE)
    # The bright block lies on the participant's left, in front and above.
    voxels[1 : middle[0] - 5, 16:20, 10:13] = 2000
    ornt = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
    )
    study.add(voxels, 2 * voxels, turned=ornt)
    page = study.page()
    record = json.loads(study.figure("figures", "json").read_text())
    for plane in record["planes"]:
        axis = manifest.PLANES[plane["name"]]
        expected = np.take(voxels, plane["number"] - 1, axis=axis).T[::-1]
        picture = study.picture(f"before{plane['name'].capitalize()}")
        scaled = np.clip(expected / intensity_scale(voxels), 0, 1)
        np.testing.assert_allclose(picture, scaled, atol=1 / 128)
    assert page.text.count("L") > 2
    assert "axial slice, L at the left" in str(page.all("img")[0]["alt"])


def test_proportions_are_of_the_body(study: Study) -> None:
    study.add(brain(), 2 * brain())
    ratios = [
        float(re.search(r"aspect-ratio: ([\d.]+)", str(attributes["style"]))[1])
        for attributes in study.page().all("div")
        if "aspect-ratio" in str(attributes.get("style"))
    ]
    x, y, z = (n * zoom for n, zoom in zip(SHAPE, ZOOMS, strict=True))
    assert ratios[::2][:3] == pytest.approx([x / y, x / z, y / z], abs=1e-3)


def test_an_image_without_orientation_is_no_promise(study: Study, shown: tuple[Study, Page]) -> None:
    study.add(brain(), 2 * brain(), codes=0)
    assert "letters may be wrong" in study.page().text
    assert "letters may be wrong" not in shown[1].text


@pytest.mark.parametrize("factor", [0.01, 300.0])
def test_overall_brightness_is_not_compared(study: Study, factor: float) -> None:
    study.add(brain(), brain() * np.float32(factor), Edit=edit(Median=factor))
    study.page()
    for plane in PLANES:
        before, after = (study.picture(f"{what}{plane.capitalize()}") for what in ("before", "after"))
        np.testing.assert_allclose(before, after, atol=1 / 128)


def test_edit_map_is_white_red_and_blue_where_it_should_be(study: Study) -> None:
    before = brain()
    gain = np.full(SHAPE, 2.0, dtype=np.float32)
    gain[:7], gain[13:] = 2.6, 1.4
    study.add(before, before * gain)
    page = study.page()
    red, green, blue, opaque = np.moveaxis(study.picture("editAxial"), -1, 0)
    plane = json.loads(study.figure("figures", "json").read_text())["planes"][0]
    seen = opaque > 0
    np.testing.assert_array_equal(
        seen, (before[:, :, plane["number"] - 1] > 0.1 * intensity_scale(before)).T[::-1]
    )
    columns = np.broadcast_to(np.arange(SHAPE[0]), seen.shape)
    assert np.all((red - blue)[seen & (columns < 7)] > 0.3)
    assert np.all((blue - red)[seen & (columns >= 13)] > 0.3)
    middle = seen & (columns >= 7) & (columns < 13)
    assert np.all(np.stack([red, green, blue])[:, middle] > 0.95)
    # 30 % to either side.
    assert "−50 %−25 %0 %+25 %+50 %" in page.text


def test_a_darkening_of_more_than_everything_is_never_shown(study: Study) -> None:
    before = brain()
    after = before * np.where(np.arange(SHAPE[0])[:, None, None] < 10, 2, 40).astype(np.float32)
    study.add(before, after)
    assert "−100 %−50 %0 %+50 %+100 %" in study.page().text


# Tone curves and histograms


def transform(gamma: float, scale: float) -> Transform:
    knots = torch.arange(KNOTS) * KNOT_STEP
    return Transform(
        curves=(1000 * knots**gamma).view(-1, 1, 1, 1).expand(KNOTS, 4, 5, 3),
        shape=SHAPE,
        box=Box.whole(SHAPE),
        tissue=torch.ones(4, 5, 3),
        scale=scale,
    )


def test_saved_curves_and_voxels_tell_the_same(study: Study) -> None:
    before = brain()
    edit = transform(0.7, intensity_scale(before))
    after = edit.apply_to_voxels(before)
    tissue = tissue_mask(after, ZOOMS)
    sidecar = study.add(before, after)
    path = sidecar.with_name(f"{sidecar.stem}_curves.safetensors")
    edit.save(path)
    saved = curves_of_cells(edit)
    seen = curves_of_voxels(before[tissue], after[tissue], edit.scale)
    assert seen is not None
    expected = np.interp(seen.inputs, saved.inputs, saved.outputs[1])
    np.testing.assert_allclose(seen.outputs[1], expected, atol=25)
    assert "saved curves" in study.page().text
    path.unlink()
    assert "--save-transform would keep" in study.page().text


def test_curves_are_of_the_cells_where_the_tissue_is() -> None:
    edit = transform(1.0, 1.0)
    curves, tissue = edit.curves.clone(), torch.zeros(edit.curves.shape[1:])
    curves[:, :2] *= 2
    tissue[:2] = 1
    shown = curves_of_cells(replace(edit, curves=curves, tissue=tissue))
    np.testing.assert_allclose(shown.outputs, [2000 * shown.inputs] * 3, rtol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_percentiles_of_voxels_are_in_order_and_of_their_bin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.uniform(0, 1, 3000).astype(np.float32)
    curves = curves_of_voxels(before, before * np.float32(rng.uniform(1, 9)), 1.0)
    assert curves is not None
    assert np.all(np.diff(curves.outputs, axis=0) >= 0)
    assert np.all(np.diff(curves.outputs[1]) > 0)


def test_too_few_voxels_have_no_curves() -> None:
    few = np.ones(MIN_VOXELS_PER_BIN - 1, dtype=np.float32)
    assert curves_of_voxels(few, few, 1.0) is None


def test_the_group_s_own_histogram_lies_within_its_band(study: Study) -> None:
    after = 2 * brain()
    tissue = after[tissue_mask(after, ZOOMS)]
    top = float(tissue.max()) * 1.2
    reference = ReferenceIntensities(top=top, shares=np.stack([tissue_histogram(tissue, top)] * 3))
    study.add(brain() ** np.float32(1.3), after)
    cards = {SHA256: replace(CARD, reference_intensities=reference.card())}
    page = study.page(cards=cards)
    (before, share) = re.search(r"median: (\d+) % before and (\d+) % after", page.text).groups()
    assert int(share) == 0
    assert int(before) > 5
    assert "does not say" not in page.text


@pytest.mark.parametrize("stripped", [True, False])
def test_a_brain_alone_is_not_said_to_lack_a_head(study: Study, stripped: bool) -> None:
    reference = ReferenceIntensities(top=100.0, shares=np.full((3, 80), 0.0125))
    study.add(brain(), 2 * brain(), Intensities={"SkullStripped": stripped})
    text = study.page(cards={SHA256: replace(CARD, reference_intensities=reference.card())}).text
    assert ("show whole heads and this one a brain alone" in text) == stripped
    assert ("Heads differ" in text) != stripped


@pytest.mark.parametrize("card", [toy_card(), CARD, replace(CARD, reference_intensities={"Top": "x"})])
def test_without_a_band_the_page_says_so(study: Study, card: ModelCard) -> None:
    study.add(brain(), 2 * brain())
    assert "does not say how the reference group's" in study.page(cards={SHA256: card}).text


# What is drawn again


def test_what_is_up_to_date_is_left_alone(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.add(brain(), 2 * brain())
    study.page()
    before = snapshot(study.derivatives)
    monkeypatch.delattr(build, "draw_figures")
    # No image is even read: only the sidecar is compared with that of the figures.
    monkeypatch.delattr(build, "load_scan")
    hashed = []
    monkeypatch.setattr(build, "file_sha256", lambda path: (hashed.append(path.suffix), file_sha256(path))[1])
    study.page()
    assert set(hashed) == {".json"}
    assert snapshot(study.derivatives) == before


@pytest.mark.parametrize("change", ["figure", "record", "sidecar", "transform", "reference", "damaged"])
def test_what_is_not_is_drawn_again(study: Study, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    sidecar = study.add(brain(), 2 * brain())
    study.page()
    drawn = []
    monkeypatch.setattr(
        build,
        "draw_figures",
        lambda scan, **images: (drawn.append(scan), figures.draw_figures(scan, **images))[1],
    )
    cards = {}
    if change == "figure":
        study.figure("editAxial").unlink()
    elif change == "record":
        study.figure("figures", "json").unlink()
    elif change == "damaged":
        study.figure("figures", "json").write_text('{"planes": 3}')
    elif change == "sidecar":
        sidecar.write_text(sidecar.read_text().replace("4.5", "4.6"))
    elif change == "transform":
        transform(1.0, 500.0).save(sidecar.with_name(f"{sidecar.stem}_curves.safetensors"))
    else:
        own = ReferenceIntensities(top=100.0, shares=np.full((3, 80), 0.0125))
        cards = {SHA256: toy_card(reference_intensities=own.card())}
    study.page(cards=cards)
    assert len(drawn) == 1
    study.page(cards=cards)
    assert len(drawn) == 1


def test_a_lost_original_is_told_and_found_again(study: Study) -> None:
    study.add(brain(), 2 * brain())
    study.page()
    path = study.raw / "sub-01/anat/sub-01_T1w.nii.gz"
    content = path.read_bytes()
    path.unlink()
    # What was drawn before stays.
    assert "not in" not in study.page().text
    study.figure("figures", "json").unlink()
    page = study.page()
    assert (
        page.text.count(f"The original, sub-01/anat/sub-01_T1w.nii.gz, is not in {study.raw} any more") == 1
    )
    assert {Path(str(one["src"])).name for one in page.all("img")} == {
        f"sub-01_desc-after{plane.capitalize()}_T1w.png" for plane in PLANES
    }
    assert not page.all("input")
    path.write_bytes(content)
    assert len(study.page().all("img")) == len(PICTURES)


def test_an_original_that_has_changed_is_not_shown(study: Study) -> None:
    study.add(brain(), 2 * brain())
    write_scan(study.raw, "sub-01_T1w.nii.gz", image_of(brain(5), ZOOMS))
    page = study.page()
    assert "has changed since; harmonize it again" in page.text
    assert len(page.all("img")) == len(PLANES)


def test_one_damaged_image_hides_no_other(study: Study) -> None:
    study.add(brain(), 2 * brain(), name="run-1_T1w")
    sidecar = study.add(brain(), 2 * brain(), name="run-2_T1w")
    image = sidecar.with_name(f"{sidecar.stem}.nii.gz")
    image.write_bytes(image.read_bytes()[:500])
    page = study.page()
    assert len(page.all("img")) == len(PICTURES)
    assert f"No figures: {image} is" in page.text


def test_a_foreign_sidecar_is_named(study: Study) -> None:
    sidecar = study.add(brain(), 2 * brain())
    sidecar.write_text("{}")
    with pytest.raises(BadData, match=re.escape(str(sidecar))):
        study.page()


def test_a_scan_that_comes_meanwhile_is_on_the_page(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.add(brain(), 2 * brain(), name="run-1_T1w")
    write = atomic.update_text

    def write_and_add(path: Path, text: str) -> None:
        write(path, text)
        monkeypatch.setattr(build, "update_text", write)
        study.add(brain(1), 2 * brain(1), name="run-2_T1w")

    monkeypatch.setattr(build, "update_text", write_and_add)
    assert "2 scans: 2 harmonized" in study.page().text


def test_people_are_those_with_results(study: Study) -> None:
    for label in ("10", "9"):
        study.add(brain(), 2 * brain(), label=label)
    (study.derivatives / "sub-11/anat").mkdir(parents=True)
    (study.derivatives / "sub-12.html").write_text("")
    assert participants_with_results(study.derivatives) == ["9", "10"]


# The program


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, random_model: Path
) -> tuple[Path, Path, Callable[..., Any]]:
    """Two participants, harmonized, one of them twice; and a call to do more."""
    folder = tmp_path_factory.mktemp("program")
    raw, out = write_dataset(folder / "raw"), folder / "out"
    for name in ("sub-01_ses-a_T1w", "sub-01_ses-b_T1w", "sub-02_T1w"):
        write_scan(raw, f"{name}.nii.gz", image_of(head(len(name)), 9.0))

    def call(*arguments: str) -> Any:
        return harmonize(raw, out, "participant", "--model", random_model, *arguments)

    result = call("--save-transform")
    assert result.code == 0, result.err
    return raw, out, call


def test_every_person_has_a_page_and_all_of_it_validates(
    done: tuple[Path, Path, Callable[..., Any]], tmp_path: Path
) -> None:
    _, out, _ = done
    assert {path.name for path in out.glob("*.html")} == {"sub-01.html", "sub-02.html"}
    page = Page((out / "sub-01.html").read_text(encoding="utf-8"))
    assert "2 scans: 2 harmonized" in page.text
    assert "saved curves" in page.text
    assert "--save-transform" in page.text
    assert problems(out, tmp_path) == []


def test_resume_and_reports_only_and_dry_runs(
    done: tuple[Path, Path, Callable[..., Any]], tmp_path: Path
) -> None:
    _, out, call = done
    before = {name: state for name, state in snapshot(out).items() if not name.startswith("logs")}
    assert counts(call("--save-transform")) == {"up to date": 3}
    named = {line.strip() for line in call("--save-transform", "--dry-run").out.splitlines()}
    assert {str(out / f"sub-{label}.html") for label in ("01", "02")} <= named
    dry = call("--reports-only", "--dry-run", "--participant-label", "sub-02")
    assert dry.out.split() == [str(out / "sub-02.html")]
    assert {name: state for name, state in snapshot(out).items() if not name.startswith("logs")} == before
    (out / "sub-02.html").unlink()
    (out / "sub-02/figures/sub-02_desc-curves_T1w.svg").unlink()
    again = call("--reports-only", "--exclude-participant-label", "01")
    assert (again.code, "1 of 1 reports" in again.out) == (0, True)
    after = {name: state for name, state in snapshot(out).items() if not name.startswith("logs")}
    assert {name: state[0] for name, state in after.items()} == {
        name: state[0] for name, state in before.items()
    }


def test_reports_of_nobody_are_18(done: tuple[Path, Path, Callable[..., Any]]) -> None:
    result = done[2]("--reports-only", "--participant-label", "77")
    assert (result.code, "no results of the participants asked for" in result.err) == (18, True)


@pytest.mark.parametrize("arguments", [(), ("--reports-only",)])
def test_a_page_that_cannot_be_written_is_a_failure_and_stops_no_other(
    done: tuple[Path, Path, Callable[..., Any]], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    _, out, call = done
    page, content = out / "sub-01.html", (out / "sub-01.html").read_bytes()
    (out / "sub-02.html").unlink()
    page.unlink()
    (page / "in the way").mkdir(parents=True)
    result = call("--save-transform", *arguments)
    (page / "in the way").rmdir()
    page.rmdir()
    page.write_bytes(content)
    assert result.code == 73
    assert f"{page} was not written: " in result.err
    assert (out / "sub-02.html").is_file()
    if not arguments:
        assert counts(result) == {"up to date": 3, "without report": 1}
        assert f"{page} was not written: " in result.out


def test_a_fault_of_the_report_is_one_sentence(
    done: tuple[Path, Path, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(run_context, "write_participant_report", fail)
    result = done[2]("--reports-only", "--participant-label", "01")
    assert result.code == 65
    assert result.err.count("\n") == 1
    assert "ZeroDivisionError: oops; please report it" in result.err


# Drawing anywhere


def test_drawing_needs_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    with matplotlib_cache_dir(tmp_path):
        scratch = Path(os.environ["MPLCONFIGDIR"])
        assert scratch.parent == tmp_path
        assert scratch.name.startswith(".")
    assert "MPLCONFIGDIR" not in os.environ
    assert files(tmp_path) == set()
    assert not scratch.exists()


@pytest.mark.parametrize("own", [True, False])
def test_a_home_or_a_folder_of_the_user_s_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", "mine") if own else monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    with matplotlib_cache_dir(tmp_path / "missing"):
        assert os.environ.get("MPLCONFIGDIR") == ("mine" if own else None)


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, bids_harmonize.commands.participant; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
