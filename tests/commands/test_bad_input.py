"""Every bad input: one sentence with the file's name, the others go on, nothing half-written is left."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from bids_harmonize.model.transform import Transform
from tests.helpers.bad_images import BAD_IMAGES, with_header
from tests.helpers.toy_datasets import (
    COMMON,
    ROOT,
    expected_files,
    files,
    harmonize,
    head,
    image_of,
    load,
    output_of,
    scan_files,
    sidecar_of,
    voxels_of,
    write_dataset,
    write_scan,
)

# A sum of NaN that goes unnoticed is as bad as a crash.
pytestmark = [
    pytest.mark.filterwarnings("error::RuntimeWarning"),
    pytest.mark.usefixtures("models_that_cannot_tell"),
    pytest.mark.process,
]

BAD, GOOD = "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"
SIDECAR = "sub-01_T1w.json"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset with one good participant, who comes second."""
    folder = write_dataset(tmp_path / "data")
    write_scan(folder, GOOD)
    return folder


def _one_sentence(dataset: Path, caplog: pytest.LogCaptureFixture, *names: str) -> str:
    """Harmonize; what is told of the bad files, one line for each, and nothing else but of the good one."""
    output = dataset.parent / "out"
    with caplog.at_level(logging.WARNING):
        result = harmonize(dataset, output, "participant", "--save-transform")
    assert result.code == 65, result.err
    assert result.out.startswith("failed:\n")
    lines = result.err.splitlines()
    assert len(lines) == len(names) + 1, result.err
    assert f"sub-02/anat/{GOOD} is harmonized" in lines[-1]
    assert "Traceback" not in result.err + result.out
    assert "unexpectedly" not in result.err
    for name, line in zip(names, lines, strict=False):
        assert name in line
        sentence = line.split(" s: ", 1)[1]
        assert sentence in result.out
    assert not [record for record in caplog.records if record.name.startswith("nibabel")]
    assert scan_files(output) == expected_files(GOOD, curves=True)
    assert voxels_of(output_of(output, GOOD)).max() > 100
    crashes = [name for name in files(output / "logs") if name.startswith("crash_")]
    assert len(crashes) == len(names)
    return "\n".join(lines[:-1])


# Images


@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_an_image_that_cannot_be_harmonized(
    dataset: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    write, words = BAD_IMAGES[kind]
    path = dataset / "sub-01" / "anat" / BAD
    path.parent.mkdir(parents=True)
    write(path)
    assert words in _one_sentence(dataset, caplog, str(path))


# Files


def test_a_dangling_link(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = dataset / "sub-01" / "anat" / BAD
    path.parent.mkdir(parents=True)
    path.symlink_to("../../.git/annex/objects/content.nii.gz")
    assert f"datalad get {path}" in _one_sentence(dataset, caplog, str(path))


def test_a_link_to_itself(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = dataset / "sub-01" / "anat" / BAD
    path.parent.mkdir(parents=True)
    path.symlink_to(path.name)
    _one_sentence(dataset, caplog, str(path))


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux, where reading /proc fails")
def test_a_file_whose_reading_fails(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = dataset / "sub-01" / "anat" / BAD
    path.parent.mkdir(parents=True)
    # Reading fails for root too, because nothing is mapped at the start of a process's memory.
    path.symlink_to("/proc/self/mem")
    assert "cannot be read: Input/output error" in _one_sentence(dataset, caplog, str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_scan(dataset, BAD)
    path.chmod(0)
    assert "cannot be read: Permission denied" in _one_sentence(dataset, caplog, str(path))


def test_a_pipe_does_not_block(dataset: Path, tmp_path: Path) -> None:
    path = dataset / "sub-01" / "anat" / BAD
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    command = [sys.executable, str(ROOT / "run.py"), str(dataset), str(tmp_path / "out"), "participant"]
    result = subprocess.run([*command, *COMMON], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 65
    assert f"{path} is not a file" in result.stderr
    assert scan_files(tmp_path / "out") == expected_files(GOOD)


def test_a_folder_with_the_name_of_a_scan(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = dataset / "sub-01" / "anat" / BAD
    path.mkdir(parents=True)
    assert f"{path} is not a file" in _one_sentence(dataset, caplog, str(path))


def test_two_equal_labels(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_scan(dataset, "sub-01_T1w.nii")
    write_scan(dataset, BAD)
    said = _one_sentence(dataset, caplog, "sub-01_T1w.nii", BAD)
    assert said.count("same labels") == 2


def test_a_name_that_contradicts_its_folder(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_scan(dataset, BAD)
    path.rename(path.with_name("sub-09_T1w.nii.gz"))
    _one_sentence(dataset, caplog, "sub-01/anat/sub-09_T1w.nii.gz")


# Sidecars


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'\xef\xbb\xbf{"EchoTime": 0.003}', "byte-order mark"),
        ('{"EchoTime": 0.003}'.encode("utf-16"), "byte-order mark"),
        ('{"Manufacturer": "Zürich"}'.encode("latin-1"), "is not UTF-8"),
        (b'[{"EchoTime": 0.003}]', "holds a JSON list instead of an object"),
        (b'{"EchoTime": 0.003', "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize("name", [SIDECAR, "sub-01_inherited"])
def test_a_sidecar_that_cannot_be_read(
    dataset: Path, caplog: pytest.LogCaptureFixture, name: str, content: bytes, words: str
) -> None:
    image = write_scan(dataset, BAD)
    path = image.parent / SIDECAR if name == SIDECAR else image.parents[1] / SIDECAR
    path.write_bytes(content)
    assert words in _one_sentence(dataset, caplog, str(path))


def test_a_sidecar_that_was_not_fetched(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_scan(dataset, BAD).parent / SIDECAR
    path.symlink_to("nowhere")
    assert f"datalad get {path}" in _one_sentence(dataset, caplog, str(path))


def test_a_sidecar_for_all_that_is_bad_fails_all(dataset: Path, tmp_path: Path) -> None:
    write_scan(dataset, BAD)
    (dataset / "T1w.json").write_bytes(b"")
    result = harmonize(dataset, tmp_path / "out", "participant")
    assert (result.code, result.err.count(f"{dataset / 'T1w.json'} is empty")) == (65, 2)
    assert scan_files(tmp_path / "out") == set()


def test_a_missing_sidecar_is_fine(dataset: Path, tmp_path: Path) -> None:
    assert harmonize(dataset, tmp_path / "out", "participant").code == 0
    assert sidecar_of(output_of(tmp_path / "out", GOOD))["SkullStripped"] is False


def test_lists_as_values_are_left_out_where_bids_wants_a_number(dataset: Path, tmp_path: Path) -> None:
    sidecar = {"EchoTime": [0.003, 0.005], "RepetitionTime": 2.3, "BodyPart": ["HEAD"], "FlipAngle": None}
    write_scan(dataset, BAD, sidecar=sidecar)
    assert harmonize(dataset, tmp_path / "out", "participant").code == 0
    written = sidecar_of(output_of(tmp_path / "out", BAD))
    assert written["RepetitionTime"] == 2.3
    assert not {"EchoTime", "BodyPart", "FlipAngle"} & set(written)


# What is harmonized all the same, with a warning


def _few(value: float) -> NDArray[np.float32]:
    voxels = head().astype(np.float32)
    voxels[::5, ::7, ::3] = value
    return voxels


def _mixed() -> NDArray[np.float32]:
    voxels = _few(np.nan)
    voxels[3, 3, :] = np.inf
    voxels[4, 4, :] = -np.inf
    voxels[5, 5, :5] = -3
    return voxels


def _without_codes() -> nib.Nifti1Image:
    return image_of(head(), qform=0, sform=0)


WARNED: dict[str, tuple[Callable[[], nib.Nifti1Image], str]] = {
    "NaN": (lambda: image_of(_few(np.nan)), "voxels that are not finite were set to 0"),
    "infinite": (lambda: image_of(_few(np.inf)), "voxels that are not finite were set to 0"),
    "negative infinite": (lambda: image_of(_few(-np.inf)), "voxels that are not finite were set to 0"),
    "few negative": (lambda: image_of(_few(-4)), "negative voxels were set to 0"),
    "mixed": (lambda: image_of(_mixed()), "voxels that are not finite were set to 0"),
    "one slice": (lambda: image_of(head()[:, :, 9:10], (9, 9, 6)), "fewer than 4 slices"),
    "one sagittal slice": (lambda: image_of(head()[9:10], (6, 9, 9)), "fewer than 4 slices"),
    "no codes": (_without_codes, "orientation is unknown"),
}


@pytest.mark.parametrize("kind", WARNED)
def test_a_doubtful_image_is_harmonized_with_a_warning(dataset: Path, tmp_path: Path, kind: str) -> None:
    make, words = WARNED[kind]
    source = write_scan(dataset, BAD, make())
    result = harmonize(dataset, tmp_path / "out", "participant", "--save-transform")
    assert result.code == 0
    output = output_of(tmp_path / "out", BAD)
    record = sidecar_of(output)["BidsHarmonize"]
    assert any(words in warning for warning in record["Warnings"])
    (line,) = (line for line in result.err.splitlines() if words in line)
    assert f"sub-01/anat/{BAD}" in line
    given, got = voxels_of(source), voxels_of(output)
    assert got.shape == given.shape
    assert np.isfinite(got).all()
    assert got.min() >= 0
    assert got.max() > 100
    usable = np.isfinite(given) & (given > 0)
    assert not got[~usable].any()
    assert record["Edit"]["NonFiniteVoxelsSetToZero"] == np.count_nonzero(~np.isfinite(given))
    assert record["Edit"]["NegativeVoxelsSetToZero"] == np.count_nonzero(np.isfinite(given) & (given < 0))
    for form in ("qform", "sform"):
        (matrix, code), (expected, expected_code) = (
            getattr(load(path), f"get_{form}")(coded=True) for path in (output, source)
        )
        assert code == expected_code
        assert (matrix is None and expected is None) or np.array_equal(matrix, expected)
    curves = output.with_name(output.name.replace(".nii.gz", "_curves.safetensors"))
    again = Transform.load(curves).apply(load(source))
    assert np.array_equal(np.asarray(again.dataobj), got)


def test_damaged_forms_beside_a_good_one_do_not_matter(dataset: Path, tmp_path: Path) -> None:
    """A quaternion that is no rotation: every reader takes the sform, which is good."""
    path = dataset / "sub-01" / "anat" / BAD
    path.parent.mkdir(parents=True)
    with_header(quatern_b=2, quatern_c=1)(path)
    result = harmonize(dataset, tmp_path / "out", "participant")
    assert result.code == 0, result.err
    got, given = load(output_of(tmp_path / "out", BAD)).header, load(path).header
    for field in ("quatern_b", "quatern_c", "srow_x", "srow_y", "srow_z", "qform_code", "sform_code"):
        assert np.array_equal(got[field], given[field]), field


# The output folder


def test_an_output_folder_that_cannot_be_written(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    result = harmonize(dataset, tmp_path / "out", "participant")
    assert (result.code, result.err.count("\n"), str(tmp_path / "out") in result.err) == (73, 1, True)
    assert (tmp_path / "out").read_text() == "in the way"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux, where /proc takes no folder")
def test_an_output_folder_that_cannot_be_made(dataset: Path) -> None:
    result = harmonize(dataset, "/proc/out", "participant")
    assert (result.code, result.err.count("\n"), "/proc/out" in result.err) == (73, 1, True), result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_output_folder_without_permission(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    result = harmonize(dataset, tmp_path / "out", "participant")
    assert (result.code, result.err.count("\n"), str(tmp_path / "out") in result.err) == (73, 1, True)


# Size


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only")
def test_memory_is_bounded_for_512_cubed(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    path = dataset / "sub-01" / "anat" / "sub-01_T1w.nii"
    path.parent.mkdir(parents=True)
    n = 512
    # A ball within 100 planes; the rest of the file is a hole, which takes no disk.
    image = image_of(np.zeros((2, 2, 2), np.int16), 0.5)
    header = image.header
    header.set_data_shape((n, n, n))
    header["magic"], header["vox_offset"] = b"n+1", 352
    with path.open("wb") as file:
        header.write_to(file)
        file.truncate(352 + 2 * n**3)
    planes = np.memmap(path, np.int16, "r+", 352, (n, n, n), order="F")[:, :, 200:300]
    x, y = np.ogrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    planes[...] = np.where(x * x + y * y < 0.5, 300 + 200 * x, 0).astype(np.int16)[:, :, None]
    planes[...] += np.random.default_rng(0).integers(0, 20, 100, dtype=np.int16)
    del planes
    command = [sys.executable, str(ROOT / "run.py"), str(dataset), str(tmp_path / "out"), "participant"]
    done = subprocess.run([*command, *COMMON, "--mem", "4GB"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The figure is the most of any child so far; none of the others comes near.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 4e9
    output = load(output_of(tmp_path / "out", "sub-01_T1w.nii.gz"))
    assert output.shape == (n, n, n)
    assert np.asarray(output.dataobj[:, :, 250]).max() > 100
