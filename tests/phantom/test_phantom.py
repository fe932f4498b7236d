"""The digital phantom: a valid, deterministic dataset whose voxels are what its labels and protocols say."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.errors import CannotCreate, UsageError
from bids_harmonize.phantom.__main__ import main
from bids_harmonize.phantom.anatomy import PHANTOM_LABELS, Head, head_labels
from bids_harmonize.phantom.dataset import write_phantom
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.phantom.sites import PhantomScan, plan_runs
from bids_harmonize.phantom.space import Grid
from bids_harmonize.simulation.protocols import Protocol
from tests.helpers.bids_validation import problems

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
RUNS = plan_runs()
# One participant of each site.
FIRST_OF_SITE = [run for run in RUNS if run.seeds[1] % 2 == 0]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("small") / "data", seed=3, sites=1, people_per_site=1)


@pytest.fixture(scope="module")
def heads() -> dict[int, Head]:
    return {person: head_labels(0, person) for person in {run.seeds[1] for run in FIRST_OF_SITE}}


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def load(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def voxels_of(path: Path) -> NDArray[np.float64]:
    return np.asarray(load(path).dataobj, dtype=np.float64)


def slope_and_intercept(path: Path) -> tuple[float, float]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    slope, intercept = struct.unpack("<2f", content[112:120])
    return slope, intercept


def interior(labels: NDArray[np.uint8], tissue: str, grid: Grid) -> NDArray[np.bool_]:
    """Voxels of a tissue whose neighbours along the thin axes are of the same tissue."""
    mask = labels == PHANTOM_LABELS.index(tissue)
    thin = np.array(grid.zooms) < 4
    structure = np.zeros((3, 3, 3), bool)
    structure[1, 1, 1] = True
    for axis in np.flatnonzero(thin):
        structure[tuple(slice(None) if a == axis else 1 for a in range(3))] = True
    eroded: NDArray[np.bool_] = ndimage.binary_erosion(mask, structure)
    return eroded


# --- The dataset ------------------------------------------------------------------------------------------


def test_four_sites_two_people_each_with_t1w_and_t2w(phantom: Path) -> None:
    images = sorted(path.relative_to(phantom) for path in phantom.glob("sub-*/**/*.nii*"))
    assert images == sorted(run.path for run in RUNS)
    assert len(images) == 16
    rows = [line.split("\t") for line in (phantom / "participants.tsv").read_text().splitlines()]
    assert rows[0] == ["participant_id", "site", "age"]
    assert [row[0] for row in rows[1:]] == [f"sub-{n:02d}" for n in range(1, 9)]
    assert [row[1] for row in rows[1:]] == [f"site{n:02d}" for n in (1, 1, 2, 2, 3, 3, 4, 4)]


def test_dataset_has_no_validator_error_and_no_warning(phantom: Path, tmp_path: Path) -> None:
    assert problems(phantom, tmp_path) == []


def test_validator_would_object_to_a_broken_dataset(small: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small, broken)
    sidecar = broken / "sub-01/anat/sub-01_T1w.json"
    sidecar.write_text(sidecar.read_text().replace("Manufacturer", "Maker"))
    assert any("ManufacturersModelName" in problem for problem in problems(broken, tmp_path))


def test_dataset_is_small_and_leaves_no_temporary_file(phantom: Path) -> None:
    files = [path for path in phantom.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 22e6
    assert not [path for path in files if path.name.startswith(".")]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.path.name)
def test_image_has_the_grid_type_and_codes_of_its_run(phantom: Path, run: PhantomScan) -> None:
    image = load(phantom / run.path)
    assert image.shape == run.grid.shape
    assert image.get_data_dtype() == np.dtype(run.dtype)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    # The loaded header forgets the slope and intercept, so they are read from the file's bytes.
    assert slope_and_intercept(phantom / run.path) == (1.0, 0.0)
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.get_qform(), run.grid.affine, atol=1e-3)
    np.testing.assert_allclose(image.get_sform(), run.grid.affine, atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), run.grid.zooms, rtol=1e-5)
    assert "".join(nib.aff2axcodes(image.affine)) == run.grid.axes


def test_sites_exercise_formats_orientations_sessions_and_slices() -> None:
    assert {run.extension for run in RUNS} == {".nii", ".nii.gz"}
    assert {run.dtype for run in RUNS} == {"int16", "uint16"}
    assert {run.grid.axes for run in RUNS} >= {"RAS", "LAS", "PSR"}
    assert {run.session for run in RUNS} == {None, "01"}
    assert max(max(run.grid.zooms) for run in RUNS) == 5
    assert any(any(run.grid.oblique) for run in RUNS)
    sequences = {run.protocol.sequence for run in RUNS if run.suffix == "T1w"}
    assert sequences == {"spin echo", "spoiled gradient echo", "MPRAGE"}


@pytest.mark.parametrize("run", FIRST_OF_SITE, ids=lambda run: run.path.name)
def test_sidecar_gives_the_protocol_in_seconds(phantom: Path, run: PhantomScan) -> None:
    name = run.path.name.removesuffix(run.extension) + ".json"
    sidecar = json.loads((phantom / run.path).with_name(name).read_text())
    assert sidecar["RepetitionTime"] == pytest.approx(run.protocol.tr / 1000)
    assert sidecar["EchoTime"] == pytest.approx(run.protocol.te / 1000)
    assert sidecar["FlipAngle"] == run.protocol.flip_angle
    assert sidecar["MagneticFieldStrength"] == run.protocol.field_strength
    assert sidecar["Manufacturer"] == "Phantom " + "ABCD"[int(run.site[-2:]) - 1]
    inversion_time = sidecar.get("InversionTime", 0) * 1000
    assert inversion_time == pytest.approx(run.protocol.ti)


# --- The voxels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.path.name)
def test_voxels_are_finite_non_negative_and_not_clipped(phantom: Path, run: PhantomScan) -> None:
    voxels = voxels_of(phantom / run.path)
    assert np.isfinite(voxels).all()
    assert voxels.min() >= 0
    assert voxels.max() < np.iinfo(run.dtype).max
    assert np.unique(voxels).size > 50


@pytest.mark.parametrize("run", FIRST_OF_SITE, ids=lambda run: run.path.name)
def test_tissue_medians_keep_the_order_of_the_contrast(
    phantom: Path, heads: dict[int, Head], run: PhantomScan
) -> None:
    voxels, labels = voxels_of(phantom / run.path), heads[run.seeds[1]].labels_on(run.grid)
    inside = {name: interior(labels, name, run.grid) for name in ("white matter", "csf")}
    inside["grey matter"] = labels == PHANTOM_LABELS.index("grey matter")
    assert min(mask.sum() for mask in inside.values()) > 500
    white, grey, csf = (np.median(voxels[inside[n]]) for n in ("white matter", "grey matter", "csf"))
    assert white > 1.1 * grey > 1.1 * csf if run.suffix == "T1w" else csf > 1.1 * grey > 1.1 * white


@pytest.mark.parametrize("run", FIRST_OF_SITE, ids=lambda run: run.path.name)
def test_white_matter_has_the_signal_of_the_equation(
    phantom: Path, heads: dict[int, Head], run: PhantomScan
) -> None:
    white = interior(heads[run.seeds[1]].labels_on(run.grid), "white matter", run.grid)
    measured = np.median(voxels_of(phantom / run.path)[white])
    expected = run.receiver.gain * run.protocol.signal("white matter")
    assert abs(np.log(measured / expected)) < 2 * run.receiver.shading


def test_raw_units_of_sites_differ_by_orders_of_magnitude(phantom: Path) -> None:
    for suffix in ("T1w", "T2w"):
        levels = [
            np.percentile(voxels_of(phantom / run.path), 90) for run in FIRST_OF_SITE if run.suffix == suffix
        ]
        assert max(levels) / min(levels) > 50


def test_noise_and_shading_are_what_the_receiver_says(heads: dict[int, Head]) -> None:
    head = replace(heads[0], texture=np.ones_like(heads[0].texture))
    protocol = Protocol(field_strength=3.0, sequence="spin echo", tr=600, te=12)
    grid = Grid(zooms=(2, 2, 2))
    flat = render(head, protocol, grid, Receiver(gain=100, snr=20, shading=0), seed=(1,))
    labels = head.labels_on(grid)
    sigma = 100 * protocol.signal("white matter") / 20
    deep = ndimage.binary_erosion(labels == PHANTOM_LABELS.index("white matter"), iterations=3)
    assert flat[deep].std() == pytest.approx(sigma, rel=0.15)
    # The magnitude of pure noise follows the Rayleigh distribution.
    corner = flat[:12, :12, -12:]
    assert corner.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.05)
    shaded = render(head, protocol, grid, Receiver(gain=100, snr=1e6, shading=0.3), seed=(1,))
    assert shaded[deep].std() / shaded[deep].mean() > 0.03


# --- The heads --------------------------------------------------------------------------------------------


def test_heads_hold_every_tissue_in_plausible_volumes(heads: dict[int, Head]) -> None:
    for head in heads.values():
        litres = (
            np.bincount(head.labels.ravel(), minlength=len(PHANTOM_LABELS)) * np.linalg.det(head.affine) / 1e6
        )
        volume = dict(zip(PHANTOM_LABELS, litres, strict=True))
        assert 0.35 < volume["white matter"] < 0.75
        assert 0.35 < volume["grey matter"] < 0.85
        assert 0.2 < volume["csf"] < 0.6
        assert 2.5 < sum(litres[1:]) < 5
        assert min(litres[1:]) > 0.01


def test_air_surrounds_the_head_but_for_the_neck(heads: dict[int, Head]) -> None:
    for head in heads.values():
        faces = (
            head.labels[0],
            head.labels[-1],
            head.labels[:, 0],
            head.labels[:, -1],
            head.labels[:, :, -1],
        )
        assert not any(face.any() for face in faces)


def test_people_differ_in_anatomy(heads: dict[int, Head]) -> None:
    brains = [np.isin(head.labels, (1, 2)) for head in heads.values()]
    for first, second in pairwise(brains):
        overlap = 2 * (first & second).sum() / (first.sum() + second.sum())
        assert 0.6 < overlap < 0.95


def test_labels_on_a_scan_follow_the_grid(heads: dict[int, Head]) -> None:
    fine, flipped = (heads[0].labels_on(Grid(zooms=(2, 2, 2), axes=axes)) for axes in ("RAS", "LPS"))
    np.testing.assert_array_equal(fine, flipped[::-1, ::-1])
    assert fine.any()


# --- Seeds, folders and the command line ------------------------------------------------------------------


def test_same_seed_same_bytes_other_seed_other_images(small: Path, tmp_path: Path) -> None:
    again = write_phantom(tmp_path / "again", seed=3, sites=1, people_per_site=1)
    other = write_phantom(tmp_path / "other", seed=4, sites=1, people_per_site=1)
    assert digests(again) == digests(small)
    differing = {name for name, digest in digests(other).items() if digests(small)[name] != digest}
    assert {name for name in digests(small) if name.endswith(".nii.gz")} <= differing


def test_more_sites_keep_those_before_them_and_differ_from_each_other() -> None:
    few, many = plan_runs(sites=4, people_per_site=1), plan_runs(sites=9, people_per_site=1)
    assert many[: len(few)] == few
    assert len({(run.protocol, run.receiver) for run in many}) == 18
    for run in many:
        white, grey, csf = map(run.protocol.signal, ("white matter", "grey matter", "csf"))
        assert white > grey > csf if run.suffix == "T1w" else csf > grey > white


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"sites": 0}, {"people_per_site": 0}])
def test_impossible_numbers_are_a_usage_error(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one site"):
        write_phantom(tmp_path / "data", **wrong)
    assert not (tmp_path / "data").exists()


def test_command_line_runs_twice_and_repairs(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    (copy / "sub-01/anat/sub-01_T2w.nii.gz").unlink()
    assert main([str(copy), "--seed", "3", "--sites", "1", "--people", "1"]) == 0
    assert str(copy) in capsys.readouterr().out
    assert digests(copy) == digests(small)


def test_command_line_refuses_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    command = [sys.executable, "-m", "bids_harmonize.phantom", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 73
    assert result.stderr.count("\n") == 1
    assert str(tmp_path) in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_phantom_of_another_seed_is_not_overwritten(small: Path) -> None:
    before = digests(small)
    with pytest.raises(CannotCreate, match="does not hold this phantom"):
        write_phantom(small, seed=5, sites=1, people_per_site=1)
    assert digests(small) == before


@pytest.mark.parametrize("content", ["[1]", "not json", '{"Phantom": null}'])
def test_folder_with_another_description_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text(content)
    with pytest.raises(CannotCreate):
        write_phantom(tmp_path, sites=1, people_per_site=1)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file")]) == 73
    assert "cannot be created" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["data", "--sead", "1"], ["data", "--seed", "one"]])
def test_command_line_that_cannot_be_understood(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 64
    assert "--help" in capsys.readouterr().err
