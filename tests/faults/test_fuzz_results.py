"""Derivatives that hold anything are reported on, or refused by the name of the file."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bids_harmonize.bids.logs import read_crashes
from bids_harmonize.cli import dataset as dataset_cli
from bids_harmonize.commands.group import write_group_reports
from bids_harmonize.measures.scan_intensities import BEFORE_AND_AFTER, TISSUES
from bids_harmonize.report.participant import build
from bids_harmonize.report.participant.build import write_participant_report
from bids_harmonize.report.participant.figures import draw_figures
from bids_harmonize.report.participant.manifest import FigureInputs, FigureManifest
from tests.helpers.fuzzing import (
    DAMAGED_JSON,
    SECONDS_FOR_ALL,
    called,
    changed,
    check_told,
    done_or_refused,
    fuzz,
)
from tests.helpers.group_results import SITES, intensities, record, write_group, write_sidecar
from tests.helpers.toy_cards import toy_card, toy_data
from tests.helpers.toy_datasets import common_options, head, image_of, write_dataset, write_scan

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

SIDECAR = {
    "Sources": ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"],
    "Manufacturer": "M",
    "MagneticFieldStrength": 3,
    "BidsHarmonize": record(
        intensities(SITES["north"], np.array([1000.0, 700.0, 300.0]), 0),
        Version="1",
        Command=["run.py"],
        ModelSHA256="ab",
        TorchVersion="2",
        InputSHA256="cd",
        OutOfDistribution={"Checked": True, "Flagged": False, "Score": 0.1, "Threshold": 0.5},
        Edit={
            "Gain": {"Median": 2.1, "Percentile1": 0.7, "Percentile99": 1.3, "Minimum": 0.5, "Maximum": 2.0},
            "OrderViolations": {"Pairs": 3, "Edges": 100},
            "DistanceToTrainingDistribution": 1.1,
        },
    ),
}


def as_bytes(content: Any) -> bytes:
    return json.dumps(content).encode()


def within(*keys: str) -> st.SearchStrategy[bytes]:
    """The sidecar with something else in one of its parts."""

    def replaced(part: Any, whole: Any = SIDECAR, keys: tuple[str, ...] = keys) -> Any:
        return {**whole, keys[0]: replaced(part, whole[keys[0]], keys[1:])} if keys else part

    part: Any = SIDECAR
    for key in keys:
        part = part[key]
    return changed(part).map(replaced).map(as_bytes)


# Parts that the reports read most are damaged more often.
SIDECARS = (
    within("BidsHarmonize")
    | within("BidsHarmonize", "Intensities")
    | within("BidsHarmonize", "Intensities", "Brain", "After")
    | within("BidsHarmonize", "Edit")
    | within("BidsHarmonize", "OutOfDistribution")
    | within()
    | DAMAGED_JSON
)


def with_record(**changes: Any) -> bytes:
    return as_bytes(SIDECAR | {"BidsHarmonize": SIDECAR["BidsHarmonize"] | changes})


MEDIANS = dict(zip(TISSUES, (1e-320, 1e38, 0), strict=True))
QUOTIENT_OVERFLOWS = SIDECAR["BidsHarmonize"]["Intensities"] | {
    "Tissues": dict.fromkeys(BEFORE_AND_AFTER, MEDIANS)
}


def test_null_is_taken_for_missing(tmp_path: Path, tally: Counter[str]) -> None:
    path = write_sidecar(tmp_path, "sub-01_T1w", SIDECAR["BidsHarmonize"])
    for key, value in SIDECAR["BidsHarmonize"].items():
        tally["inputs fuzzed"] += 1
        null = dict.fromkeys(value) if isinstance(value, dict) else None
        path.write_bytes(with_record(**{key: null}))
        (report,) = write_group_reports(tmp_path, tmp_path)
        assert report.scans == 1


@pytest.mark.parametrize(("people", "examples"), [(8, 250), (10, 10)])
def test_the_group(tmp_path: Path, tally: Counter[str], long: bool, people: int, examples: int) -> None:
    """Beside scans of others, enough to be compared, or asked about by the probe too, which takes longer."""
    output = write_group(tmp_path, people, sites={name: SITES[name] for name in ("north", "south")})
    damaged = write_sidecar(output, "sub-01_T1w", SIDECAR["BidsHarmonize"])

    @fuzz(tally, long, examples)
    @given(SIDECARS)
    @example(with_record(OutOfDistribution=None))
    @example(with_record(Intensities=QUOTIENT_OVERFLOWS))
    @example(with_record(OutOfDistribution={"Flagged": 2}))
    @example(with_record(Edit=[]))
    @example(with_record(Warnings=[1]))
    @example(with_record(Intensities={"Levels": 1, "Foreground": {"Before": ["a"]}}))
    def told_or_refused(content: bytes) -> None:
        damaged.write_bytes(content)
        with done_or_refused(damaged):
            reports = write_group_reports(output, tmp_path)
            assert damaged.name.replace(".json", ".nii.gz") in reports[0].table.read_text(encoding="utf-8")
            page = reports[0].page.read_text(encoding="utf-8")
            assert not re.search(r"\bnan\b|\binf\b", page)


def test_sites_by_damaged_sidecars(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    paths = [write_sidecar(tmp_path, f"sub-{n}_T1w", SIDECAR["BidsHarmonize"]) for n in range(3)]

    @fuzz(tally, long, 60)
    @given(st.lists(SIDECARS, min_size=3, max_size=3))
    def told_or_refused(contents: list[bytes]) -> None:
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        with done_or_refused(*paths):
            write_group_reports(tmp_path, tmp_path)


def test_crash_files(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    path = tmp_path / "logs" / "crash_x_sub-01_T1w.txt"
    path.parent.mkdir()

    @fuzz(tally, long, 200)
    @given(DAMAGED_JSON | st.text().map(str.encode))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        for crash in read_crashes(tmp_path):
            assert isinstance(crash.stem, str)


# --- The page about a participant -------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A scan, its derivative and the page about it."""
    raw = write_dataset(tmp_path / "raw")
    write_scan(raw, "sub-01_T1w.nii.gz", image_of(head(1)))
    output = tmp_path / "out"
    write_scan(output, "sub-01_desc-harmonized_T1w.nii.gz", image_of(2.0 * head(1)))
    write_sidecar(output, "sub-01_T1w", SIDECAR["BidsHarmonize"]).write_bytes(as_bytes(SIDECAR))
    write_participant_report(output, "01", raw, {})
    return output


def test_a_person(tmp_path: Path, output: Path, tally: Counter[str], long: bool, monkeypatch) -> None:
    """Figures are drawn from images; here their sidecars matter."""
    (sidecar,) = output.rglob("*_desc-harmonized_T1w.json")
    card = toy_card(data=toy_data())
    manifests: list[FigureManifest] = []

    def draw_once(scan: FigureInputs, **images: Any) -> FigureManifest:
        if not manifests:
            manifests.append(draw_figures(scan, **images))
        return manifests[0]

    monkeypatch.setattr(build, "draw_figures", draw_once)
    # The sidecar is not the one that the page was first written for, so that its figures are drawn here.
    sidecar.write_bytes(as_bytes(SIDECAR) + b"\n")
    write_participant_report(output, "01", tmp_path / "raw", {"ab": card})
    assert len(manifests) == 1

    @fuzz(tally, long, 300)
    @given(SIDECARS)
    @example(with_record(Edit={"Gain": {"Median": 2}}))
    @example(with_record(OutOfDistribution={"Checked": True, "Flagged": False}))
    @example(with_record(ModelSHA256=[]))
    @example(with_record(Command="run.py", OutputScale={"Description": None}))
    @example(as_bytes(SIDECAR | {"Sources": 1}))
    def told_or_refused(content: bytes) -> None:
        sidecar.write_bytes(content)
        with done_or_refused(sidecar):
            page = write_participant_report(output, "01", tmp_path / "raw", {"ab": card})
            assert page.read_text(encoding="utf-8").endswith("</html>\n")


def test_figures_that_were_drawn_before(
    tmp_path: Path, output: Path, tally: Counter[str], long: bool
) -> None:
    """What says which they are may be damaged; then they are drawn again."""
    (told,) = output.rglob("*_desc-figures_T1w.json")
    drawn = json.loads(told.read_text())

    @fuzz(tally, long, 40)
    @given(changed(drawn).map(as_bytes) | DAMAGED_JSON)
    @example(as_bytes(drawn | {"pictures": []}))
    @example(as_bytes(drawn | {"pictures": ["../../../x"], "drawings": ["a"]}))
    @example(as_bytes(drawn | {"planes": [drawn["planes"][0] | {"upwards": 0}]}))
    def shown(content: bytes) -> None:
        told.write_bytes(content)
        page = write_participant_report(output, "01", tmp_path / "raw", {})
        assert "No figures" not in page.read_text(encoding="utf-8")


def test_reports_of_damaged_images_and_curves(
    tmp_path: Path, output: Path, tally: Counter[str], long: bool
) -> None:
    (image,) = output.rglob("*_desc-harmonized_T1w.nii.gz")
    curves = image.with_name(image.name.replace(".nii.gz", "_curves.safetensors"))
    good = image.read_bytes()
    content = nib.load(image).to_bytes()

    @fuzz(tally, long, 15)
    @given(st.binary(max_size=50), st.integers(0, len(content)), st.booleans())
    def told(damage: bytes, place: int, curves_alone: bool) -> None:
        image.write_bytes(good if curves_alone else content[:place] + damage)
        curves.write_bytes(damage)
        page = write_participant_report(output, "01", tmp_path / "raw", {})
        assert "No figures" in page.read_text(encoding="utf-8")


# --- Whole commands ---------------------------------------------------------------------------------------


def test_commands_on_damaged_derivatives(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    people = 4

    @fuzz(tally, long, 6, SECONDS_FOR_ALL)
    @given(st.lists(SIDECARS, min_size=people, max_size=people), DAMAGED_JSON)
    def done_or_named(contents: list[bytes], crash: bytes) -> None:
        tally["inputs fuzzed"] += people
        for folder in ("raw", "out"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        raw, output = write_dataset(tmp_path / "raw"), tmp_path / "out"
        write_scan(raw, "sub-01_T1w.nii.gz")
        for n, content in enumerate(contents):
            write_sidecar(output, f"sub-{n}_T1w", SIDECAR["BidsHarmonize"]).write_bytes(content)
        (output / "logs").mkdir()
        (output / "logs" / "crash_x_sub-01_T1w.txt").write_bytes(crash)
        for level in (["group"], ["participant", "--reports-only"]):
            result = called(dataset_cli.main, [str(raw), str(output), *level, *common_options(level)])
            check_told(result, *(f"sub-{n}" for n in range(people)))
            assert result.code in (0, 65, 66), result.err
