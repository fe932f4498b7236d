"""What a dry run names is what is written then; itself it writes nothing and loads little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.toy_datasets import (
    COMMON,
    DATASET_FILES,
    ROOT,
    harmonize,
    scan_files,
    snapshot,
    write_dataset,
    write_scan,
)

pytestmark = pytest.mark.usefixtures("models_that_cannot_tell", "without_reports")

NAMES = ("sub-01_T1w.nii.gz", "sub-01_T2w.nii", "sub-02_ses-b_acq-fast_run-02_T1w.nii.gz")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = write_dataset(tmp_path / "raw")
    for name in (*NAMES, "sub-01_part-phase_T1w.nii.gz"):
        write_scan(folder, name)
    return folder


@pytest.mark.parametrize("arguments", [[], ["--save-transform"]])
def test_it_writes_nothing_and_names_what_will_be_written(
    dataset: Path, tmp_path: Path, arguments: list[str]
) -> None:
    before = snapshot(tmp_path)
    output = tmp_path / "parent" / "out"
    dry = harmonize(dataset, output, "participant", "--dry-run", *arguments)
    assert dry.code == 0
    assert snapshot(tmp_path) == before
    for name in NAMES:
        assert next(dataset.rglob(name)).relative_to(dataset).as_posix() in dry.out
    assert "part-phase" not in dry.out
    assert harmonize(dataset, output, "participant", *arguments).code == 0
    named = {line.strip() for line in dry.out.splitlines()}
    assert {str(output / name) for name in scan_files(output) | DATASET_FILES} <= named


def test_it_makes_no_index(dataset: Path, tmp_path: Path) -> None:
    index = ("--bids-database-dir", tmp_path / "index")
    result = harmonize(dataset, tmp_path / "out", "participant", "--dry-run", *index)
    assert result.code == 0
    assert not (tmp_path / "index").exists()


def test_it_says_what_is_up_to_date_what_is_skipped_and_what_would_fail(
    dataset: Path, tmp_path: Path
) -> None:
    assert harmonize(dataset, tmp_path / "out", "participant").code == 0
    write_scan(dataset, "sub-03_T1w.nii.gz", sidecar={"BodyPart": "PROSTATE"})
    write_scan(dataset, "sub-04_T1w.nii")
    write_scan(dataset, "sub-04_T1w.nii.gz")
    before = snapshot(tmp_path / "out")
    result = harmonize(dataset, tmp_path / "out", "participant", "--dry-run")
    assert result.code == 0
    assert "sub-01/anat/sub-01_T1w.nii.gz is up to date" in result.out
    assert "sub-03/anat/sub-03_T1w.nii.gz skipped" in result.out
    assert result.out.count("would fail: ") == 2
    assert snapshot(tmp_path / "out") == before


def test_a_device_that_is_not_there_is_told(dataset: Path, tmp_path: Path) -> None:
    result = harmonize(dataset, tmp_path / "out", "participant", "--dry-run", "--device", "cuda:99")
    assert (result.code, "there is no device cuda:99" in result.err) == (64, True)


def test_it_is_done_without_the_libraries_that_harmonize(dataset: Path, tmp_path: Path) -> None:
    arguments = [str(dataset), str(tmp_path / "out"), "participant", "--dry-run", *COMMON]
    script = (
        "import sys; from bids_harmonize.cli import main; "
        f"assert main({arguments!r}) == 0; print({{'torch', 'scipy'}} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
