"""The loop over runs and its rules, by real calls of the program on datasets of one scan or a few.

It is one file because many of its tests look at the same output, which one call of the program makes.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_harmonize.model.bilateral_grid import KNOTS
from bids_harmonize.model.card import WEIGHTS
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.model.network import CurveNetwork
from bids_harmonize.model.transform import Transform
from bids_harmonize.training.trainer import weights_content
from bids_harmonize.version import version
from tests.helpers.toy_datasets import (
    COMMON,
    DATASET_FILES,
    ROOT,
    Result,
    counts,
    expected_files,
    files,
    harmonize,
    harmonize_apart,
    head,
    image_of,
    load,
    output_of,
    scan_files,
    sha256,
    sidecar_of,
    snapshot,
    voxels_of,
    write_dataset,
    write_scan,
)

pytestmark = [pytest.mark.usefixtures("models_that_cannot_tell", "without_reports"), pytest.mark.process]

NAMES = (
    "sub-01_T1w.nii.gz",
    "sub-01_T2w.nii",
    "sub-02_ses-a_part-mag_T1w.nii.gz",
    "sub-02_ses-b_acq-fast_run-02_T1w.nii.gz",
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two participants, one with sessions; both formats, thick slices, magnitude and phase. Read only."""
    dataset = write_dataset(tmp_path_factory.mktemp("raw") / "data")
    inherited = {"MagneticFieldStrength": 3, "Manufacturer": "Above", "Units": "T", "BodyPart": "HEAD"}
    (dataset / "T1w.json").write_text(json.dumps(inherited))
    write_scan(dataset, NAMES[0], sidecar={"Manufacturer": "Scanners Zürich", "EchoTime": 0.003})
    write_scan(dataset, NAMES[1], image_of(head(3, (20, 24, 12)), (9, 9, 15)))
    write_scan(dataset, NAMES[2])
    write_scan(dataset, "sub-02_ses-a_part-phase_T1w.nii.gz")
    write_scan(dataset, NAMES[3])
    return dataset


@pytest.fixture(scope="module")
def before(raw: Path) -> dict[str, tuple[str, int]]:
    """The dataset as it was before anything ran on it."""
    return snapshot(raw)


@pytest.fixture(scope="module")
def out(raw: Path, before: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the program makes of `raw`. Read only."""
    folder = tmp_path_factory.mktemp("derivatives") / "out"
    result = harmonize(raw, folder, "participant", "--save-transform", "--seed", "7")
    assert (result.code, result.err.count("is harmonized")) == (0, len(NAMES))
    return folder


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three participants, the second of whom has a scan that holds no image."""
    dataset = write_dataset(tmp_path / "data")
    for label in ("01", "02", "03"):
        path = write_scan(dataset, f"sub-{label}_T1w.nii.gz")
        if label == "02":
            path.write_bytes(b"no image")
    return dataset


@pytest.fixture
def own_model(tmp_path: Path) -> Callable[..., Path]:
    """Write an untrained model, whose curves change nothing but the scale, and its card."""

    def write(name: str = "mine", unit: float = 500.0, **card: object) -> Path:
        torch.manual_seed(len(name))
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(weights_content(CurveNetwork(widths=(4, 6), context=5)))
        content = {
            "Name": name,
            "Modality": "T1w",
            "BodyParts": ["HEAD"],
            "OutputScale": {"Unit": unit},
            "InputDistribution": {"Mean": [0.5] * 2 * KNOTS, "StandardDeviation": [1.0] * 2 * KNOTS},
            "SHA256": sha256(path),
        }
        path.with_suffix(".json").write_text(json.dumps(content | card))
        return path

    return write


# What is written


def test_the_selected_scans_are_harmonized_and_nothing_else_is_written(out: Path) -> None:
    assert scan_files(out) == expected_files(*NAMES, curves=True)
    logs = files(out / "logs")
    assert len(logs) == 1
    assert logs.pop().startswith("run_")


def test_magnitude_is_kept_and_phase_is_not(out: Path) -> None:
    made = {path.name for path in (out / "sub-02").rglob("*.nii.gz")}
    assert "sub-02_ses-a_part-mag_desc-harmonized_T1w.nii.gz" in made
    assert not any("phase" in name for name in made)


@pytest.mark.parametrize("name", NAMES)
def test_an_unpacked_input_too_gives_packed_float_without_negative_values(out: Path, name: str) -> None:
    path = output_of(out, name)
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert load(path).get_data_dtype() == np.float32
    voxels = voxels_of(path)
    assert np.isfinite(voxels).all()
    assert voxels.min() >= 0
    assert voxels.max() > 0


def test_input_files_are_unchanged(raw: Path, before: dict[str, tuple[str, int]], out: Path) -> None:
    assert out.is_dir()
    assert snapshot(raw) == before


def test_every_output_has_the_usual_permissions(out: Path, tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode & 0o777
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in out.rglob("*") if path.is_file()}
    assert set(modes.values()) == {oct(usual)}, modes


def test_bids_fields_and_acquisition_metadata_of_the_sidecar(out: Path) -> None:
    sidecar = sidecar_of(output_of(out, NAMES[0]))
    assert sidecar.pop("BidsHarmonize")
    assert "T1w" in sidecar.pop("Description")
    assert sidecar == {
        "Sources": ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"],
        "SpatialReference": "orig",
        "SkullStripped": False,
        "MagneticFieldStrength": 3,
        "Manufacturer": "Scanners Zürich",
        "EchoTime": 0.003,
        "BodyPart": "HEAD",
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_sidecar_says_how_the_image_was_made(raw: Path, out: Path, name: str) -> None:
    record = sidecar_of(output_of(out, name))["BidsHarmonize"]
    modality = name.split(".")[0][-3:]
    weights = WEIGHTS / f"{modality}.safetensors"
    card = json.loads(weights.with_suffix(".json").read_text())
    source = next(raw.rglob(name))
    assert record["Version"] == version()
    assert record["Model"] == card["Name"]
    assert record["ModelSHA256"] == sha256(weights) == card["SHA256"]
    assert record["InputSHA256"] == sha256(source)
    options = {
        "SaveTransform": True,
        "Seed": 7,
        "OutOfDistribution": "harmonize",
        "Device": "cpu",
        "Models": [],
    }
    assert record["Options"] == options
    assert record["OptionsSHA256"] == hashlib.sha256(b'{"SaveTransform":true,"Seed":7}').hexdigest()
    assert record["Device"] == "cpu"
    assert record["TorchVersion"] == torch.__version__
    assert record["CUDAVersion"] is None
    assert record["Threads"] == 1
    assert record["Seed"] == 7
    assert 0 < record["ElapsedSeconds"] < 600
    assert record["OutputScale"]["Unit"] == 1000
    assert isinstance(record["Warnings"], list)


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_of_the_edit_are_those_of_the_voxels(raw: Path, out: Path, name: str) -> None:
    edit = sidecar_of(output_of(out, name))["BidsHarmonize"]["Edit"]
    given, got = voxels_of(next(raw.rglob(name))), voxels_of(output_of(out, name))
    foreground = given > 0.1 * edit["IntensityScale"]
    gain = got[foreground] / given[foreground]
    median = float(np.median(gain))
    assert edit["Gain"]["Median"] == pytest.approx(median, rel=1e-4)
    percentiles = {
        "Minimum": gain.min(),
        "Percentile1": np.percentile(gain, 1),
        "Percentile99": np.percentile(gain, 99),
        "Maximum": gain.max(),
    }
    for key, value in percentiles.items():
        assert edit["Gain"][key] == pytest.approx(float(value) / median, rel=1e-3), key
    assert 0 <= edit["OrderViolations"]["Pairs"] <= edit["OrderViolations"]["Edges"]
    assert edit["OrderViolations"]["Edges"] > 100
    assert edit["DistanceToTrainingDistribution"] > 0
    assert edit["NonFiniteVoxelsSetToZero"] == edit["NegativeVoxelsSetToZero"] == 0


def test_the_run_log_has_the_full_command_and_the_environment(
    one_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("BIDS_HARMONIZE_TOKEN", "not for logs")
    result = harmonize_apart(one_scan, tmp_path / "out", "participant", "--seed", "3", "-v")
    assert result.code == 0
    (log,) = (tmp_path / "out/logs").iterdir()
    record = json.loads(log.read_text())
    typed = [str(ROOT / "run.py"), str(one_scan), str(tmp_path / "out"), "participant", "--seed", "3", "-v"]
    assert record["Command"] == [*typed, *COMMON]
    assert record["Environment"]["OMP_NUM_THREADS"] == "1"
    assert "not for logs" not in log.read_text()
    assert record["Versions"]["torch"] == importlib.metadata.version("torch")
    assert record["Versions"]["bids-harmonize"] == version()


def test_where_the_results_are_is_printed(one_scan: Path, tmp_path: Path) -> None:
    result = harmonize(one_scan, tmp_path / "out", "participant")
    assert f"results are in {tmp_path / 'out'}" in result.out
    assert counts(result) == {"harmonized": 1}


# The grid is kept


def _rotated() -> np.ndarray:
    """Voxel axes turned about two axes, voxels of three sizes."""
    a, b = np.radians([17, -11])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([8.5, 9.25, 10])
    affine[:3, 3] = [-71.3, -90.1, 33.7]
    return affine


def _grid(name: str) -> nib.Nifti1Image:
    image = image_of(head(5))
    affine, oblique = image.affine.copy(), _rotated()
    if name == "oblique":
        image.set_qform(oblique, 1)
        image.set_sform(oblique, 1)
    elif name == "flipped":
        affine[:3, :2] *= -1
        image.set_qform(affine, 1)
        image.set_sform(affine, 2)
    elif name == "permuted":
        turned = affine[:, [2, 0, 1, 3]]
        image.set_qform(turned, 1)
        image.set_sform(turned, 1)
    elif name == "sformonly":
        sheared = oblique.copy()
        sheared[0, 1] += 0.7
        image.set_sform(sheared, 3)
        image.set_qform(None, 0)
    elif name == "qformonly":
        image.set_qform(oblique, 2)
        image.set_sform(None, 0)
    elif name == "disagree":
        image.set_qform(affine, 1)
        image.set_sform(oblique, 4)
    elif name == "metre":
        image = image_of(head(5), 0.009)
        image.header.set_xyzt_units("meter", "msec")
    elif name == "nounits":
        image.header.set_xyzt_units("unknown", "unknown")
    elif name == "fourth":
        image = image_of(head(5)[..., None])
    elif name == "scaled":
        image.header.set_slope_inter(0.25, 3)
    elif name == "bigendian":
        header = image.header.as_byteswapped(">")
        image = nib.Nifti1Image(head(5), affine, header)
    elif name == "nifti2":
        image = nib.Nifti2Image(head(5), affine, nib.Nifti2Header.from_header(image.header))
    return image


GRIDS = (
    "oblique",
    "flipped",
    "permuted",
    "sformonly",
    "qformonly",
    "disagree",
    "metre",
    "nounits",
    "fourth",
    "scaled",
    "bigendian",
    "nifti2",
)


@pytest.fixture(scope="module")
def grids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset with an image of every kind of grid, and what the program makes of it."""
    dataset = write_dataset(tmp_path_factory.mktemp("grids") / "data")
    for name in GRIDS:
        write_scan(dataset, f"sub-{name}_T1w.nii.gz", _grid(name))
    result = harmonize(dataset, dataset.parent / "out", "participant")
    assert result.code == 0, result.err
    return dataset, dataset.parent / "out"


@pytest.mark.parametrize("name", GRIDS)
def test_grid_and_header_are_kept(grids: tuple[Path, Path], name: str) -> None:
    given = load(grids[0] / f"sub-{name}/anat/sub-{name}_T1w.nii.gz")
    got = load(output_of(grids[1], f"sub-{name}_T1w.nii.gz"))
    assert type(got) is type(given)
    assert got.shape == given.shape
    assert got.get_data_dtype().newbyteorder("=") == np.float32
    assert np.array_equal(got.affine, given.affine)
    assert got.header.get_xyzt_units() == given.header.get_xyzt_units()
    for form in ("qform", "sform"):
        (matrix, code), (expected, expected_code) = (
            getattr(image, f"get_{form}")(coded=True) for image in (got, given)
        )
        assert int(code) == int(expected_code), form
        assert np.array_equal(matrix, expected), form
    kept = ("pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    for field in (*kept, "srow_x", "srow_y", "srow_z", "qform_code", "sform_code", "xyzt_units", "dim"):
        assert np.array_equal(got.header[field], given.header[field]), field
    slope, intercept = got.header.get_slope_inter()
    assert slope in (None, 1)
    assert intercept in (None, 0)


def test_voxels_do_not_depend_on_how_the_file_stores_them(grids: tuple[Path, Path]) -> None:
    plain = voxels_of(output_of(grids[1], "sub-nounits_T1w.nii.gz"))
    for name in ("bigendian", "nifti2", "fourth", "metre"):
        voxels = voxels_of(output_of(grids[1], f"sub-{name}_T1w.nii.gz"))
        assert np.array_equal(voxels.reshape(plain.shape), plain), name


def test_axes_in_another_order_give_the_same_person(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    plain = image_of(head(8))
    turned = plain.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    write_scan(dataset, "sub-a_T1w.nii.gz", plain)
    write_scan(dataset, "sub-b_T1w.nii.gz", turned)
    assert harmonize(dataset, tmp_path / "out", "participant").code == 0
    expected = load(output_of(tmp_path / "out", "sub-a_T1w.nii.gz"))
    got = nib.as_closest_canonical(load(output_of(tmp_path / "out", "sub-b_T1w.nii.gz")))
    assert np.allclose(got.affine, expected.affine)
    assert np.allclose(got.get_fdata(), expected.get_fdata(), rtol=1e-4, atol=0.05)


# The same twice


def test_two_runs_give_the_same_bytes(raw: Path, out: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    result = harmonize_apart(raw, again, "participant", "--save-transform", "--seed", "7")
    assert result.code == 0
    for name in expected_files(*NAMES, curves=True):
        if name.endswith(".json"):
            first, second = (json.loads((folder / name).read_text()) for folder in (out, again))
            for sidecar in (first, second):
                # In a process of its own the program tells that toys are no heads.
                for key in ("Command", "ElapsedSeconds", "OutOfDistribution", "OptionsSHA256", "Warnings"):
                    sidecar["BidsHarmonize"].pop(key)
            assert first == second
        else:
            assert (again / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_three_lines_of_python_give_the_voxels_of_the_command_line(raw: Path, out: Path, name: str) -> None:
    model = Model.load(name.split(".")[0][-3:], "cpu")
    result = model.harmonize(nib.load(next(raw.rglob(name))))
    expected = output_of(out, name)
    assert np.array_equal(np.asarray(result.image.dataobj), voxels_of(expected))
    assert result.summary == sidecar_of(expected)["BidsHarmonize"]["Edit"]
    saved = Transform.load(expected.with_name(expected.name.replace(".nii.gz", "_curves.safetensors")))
    assert torch.equal(saved.curves, result.transform.curves)
    assert (saved.shape, saved.scale) == (result.transform.shape, result.transform.scale)


@pytest.mark.parametrize("name", NAMES)
def test_saved_curves_make_the_same_voxels_again(raw: Path, out: Path, name: str) -> None:
    output = output_of(out, name)
    curves = output.with_name(output.name.replace(".nii.gz", "_curves.safetensors"))
    again = Transform.load(curves).apply(nib.load(next(raw.rglob(name))))
    assert np.array_equal(np.asarray(again.dataobj), voxels_of(output))
    assert np.array_equal(again.affine, load(output).affine)


# Resume


def _again(dataset: Path, output: Path, *arguments: str | Path) -> Result:
    result = harmonize(dataset, output, "participant", *arguments)
    assert result.code == 0, result.err
    return result


def test_what_is_done_is_not_done_again(one_scan: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    _again(one_scan, output, "--save-transform")
    first = {name: state for name, state in snapshot(output).items() if not name.startswith("logs")}
    result = _again(one_scan, output, "--save-transform")
    second = {name: state for name, state in snapshot(output).items() if not name.startswith("logs")}
    assert second == first
    assert counts(result) == {"up to date": 1}


@pytest.mark.parametrize("change", [["--seed", "1"], ["--save-transform"], ["--force"]])
def test_other_options_and_force_do_it_again(one_scan: Path, tmp_path: Path, change: list[str]) -> None:
    output = tmp_path / "out"
    _again(one_scan, output)
    image = output_of(output, "sub-01_T1w.nii.gz")
    first = image.stat().st_mtime_ns
    assert "1 harmonized" in _again(one_scan, output, *change).out
    assert image.stat().st_mtime_ns > first
    assert scan_files(output) == expected_files("sub-01_T1w.nii.gz", curves=change == ["--save-transform"])
    # With the first options the scan is done again, and files that only the others write are gone.
    if change != ["--force"]:
        assert "1 harmonized" in _again(one_scan, output).out
        assert scan_files(output) == expected_files("sub-01_T1w.nii.gz")


def test_another_input_is_harmonized_again_and_only_that(tmp_path: Path) -> None:
    dataset, output = write_dataset(tmp_path / "data"), tmp_path / "out"
    for label in ("01", "02"):
        write_scan(dataset, f"sub-{label}_T1w.nii.gz")
    _again(dataset, output)
    first = snapshot(output)
    source = write_scan(dataset, "sub-02_T1w.nii.gz", image_of(head(99)))
    assert counts(_again(dataset, output)) == {"harmonized": 1, "up to date": 1}
    second = snapshot(output)
    for name in expected_files("sub-01_T1w.nii.gz"):
        assert second[name] == first[name]
    for name in expected_files("sub-02_T1w.nii.gz"):
        assert second[name][0] != first[name][0]
    record = sidecar_of(output_of(output, "sub-02_T1w.nii.gz"))["BidsHarmonize"]
    assert record["InputSHA256"] == sha256(source)


def test_another_model_does_it_again(one_scan: Path, tmp_path: Path, own_model: Callable[..., Path]) -> None:
    output, image = tmp_path / "out", output_of(tmp_path / "out", "sub-01_T1w.nii.gz")
    _again(one_scan, output)
    bundled = sidecar_of(image)["BidsHarmonize"]["ModelSHA256"]
    weights = own_model()
    assert "1 harmonized" in _again(one_scan, output, "--model", weights).out
    record = sidecar_of(image)["BidsHarmonize"]
    assert record["ModelSHA256"] == sha256(weights) != bundled
    assert record["Model"] == "mine"
    assert "1 up to date" in _again(one_scan, output, "--model", weights).out


@pytest.mark.parametrize("lost", [".nii.gz", ".json"])
def test_an_output_with_a_part_missing_is_made_again(one_scan: Path, tmp_path: Path, lost: str) -> None:
    output = tmp_path / "out"
    _again(one_scan, output)
    before = snapshot(output)
    (name,) = (name for name in expected_files("sub-01_T1w.nii.gz") if name.endswith(lost))
    (output / name).unlink()
    assert "1 harmonized" in _again(one_scan, output).out
    image = output_of(output, "sub-01_T1w.nii.gz").relative_to(output).as_posix()
    assert snapshot(output)[image][0] == before[image][0]
    assert scan_files(output) == expected_files("sub-01_T1w.nii.gz")


def test_lost_curves_are_made_again(one_scan: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    _again(one_scan, output, "--save-transform")
    (curves,) = output.rglob("*_curves.safetensors")
    curves.unlink()
    _again(one_scan, output, "--save-transform")
    assert curves.is_file()


# Models


def test_an_untrained_model_changes_the_scale_alone(
    one_scan: Path, tmp_path: Path, own_model: Callable[..., Path]
) -> None:
    assert harmonize(one_scan, tmp_path / "out", "participant", "--model", own_model()).code == 0
    output = output_of(tmp_path / "out", "sub-01_T1w.nii.gz")
    edit = sidecar_of(output)["BidsHarmonize"]["Edit"]
    given = voxels_of(one_scan / "sub-01/anat/sub-01_T1w.nii.gz")
    assert np.allclose(voxels_of(output), given / edit["IntensityScale"] * 500, rtol=1e-4, atol=0.01)
    assert edit["Gain"]["Minimum"] == pytest.approx(1, abs=1e-3)
    assert edit["Gain"]["Maximum"] == pytest.approx(1, abs=1e-3)
    assert edit["OrderViolations"]["Pairs"] == 0


def test_prostate_is_skipped_unless_a_model_serves_it(tmp_path: Path, own_model: Callable[..., Path]) -> None:
    dataset, output = write_dataset(tmp_path / "data"), tmp_path / "out"
    write_scan(dataset, "sub-01_T1w.nii.gz", sidecar={"BodyPart": "PROSTATE"})
    write_scan(dataset, "sub-02_T1w.nii.gz", sidecar={"BodyPart": "Head"})
    result = harmonize(dataset, output, "participant")
    assert result.code == 0
    (line,) = (line for line in result.err.splitlines() if "sub-01" in line)
    assert "sub-01/anat/sub-01_T1w.nii.gz skipped: no model for T1w of PROSTATE" in line
    assert counts(result) == {"harmonized": 1, "skipped": 1}
    assert scan_files(output) == expected_files("sub-02_T1w.nii.gz")
    prostate = own_model("gland", BodyParts=["PROSTATE"])
    assert harmonize(dataset, output, "participant", "--model", prostate).code == 0
    assert scan_files(output) == expected_files("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    assert sidecar_of(output_of(output, "sub-01_T1w.nii.gz"))["BidsHarmonize"]["Model"] == "gland"
    assert sidecar_of(output_of(output, "sub-02_T1w.nii.gz"))["BidsHarmonize"]["Model"] == "T1w-head"


def test_a_model_for_one_modality_leaves_the_other_to_the_bundled_one(
    raw: Path, tmp_path: Path, own_model: Callable[..., Path]
) -> None:
    call = (raw, tmp_path / "out", "participant", "--participant-label", "01", "--model", own_model())
    assert harmonize(*call).code == 0
    used = [sidecar_of(output_of(tmp_path / "out", name))["BidsHarmonize"]["Model"] for name in NAMES[:2]]
    assert used == ["mine", "T2w-head"]


# Exit codes


def test_all_done_is_0(one_scan: Path, tmp_path: Path) -> None:
    result = harmonize(one_scan, tmp_path / "out", "participant")
    assert (result.code, result.err.strip().count("\n")) == (0, 0)


def test_input_that_is_not_bids_is_16(one_scan: Path, tmp_path: Path) -> None:
    (one_scan / "dataset_description.json").unlink()
    result = harmonize(one_scan, tmp_path / "out", "participant")
    assert result.code == 16
    assert "dataset_description.json is missing" in result.err
    assert not (tmp_path / "out").exists()
    skipped = harmonize(one_scan, tmp_path / "out", "participant", "--skip-bids-validation")
    assert skipped.code == 0
    assert "validation of the input was skipped" in skipped.err
    assert scan_files(tmp_path / "out") == expected_files("sub-01_T1w.nii.gz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--participant-label", "09"], "1 participant (01)"),
        (["--modalities", "T2w"], "T1w in 1, T2w in 0"),
        (["--session-label", "x"], "it has no sessions"),
    ],
)
def test_nothing_selected_is_18_and_says_what_is_there(
    one_scan: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = harmonize(one_scan, tmp_path / "out", "participant", *arguments)
    assert result.code == 18
    assert words in result.err
    assert not (tmp_path / "out").exists()


def _harmonize(dataset: Path, output: str, arguments: Sequence[str]) -> Result:
    # The last --device counts, and `harmonize` adds one.
    if "--device" in arguments:
        done = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), str(dataset), output, "participant", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return Result(code=done.returncode, out=done.stdout, err=done.stderr)
    return harmonize(dataset, output, "participant", *arguments)


@pytest.mark.parametrize(
    ("output", "arguments"),
    [
        ("data", []),
        ("data/sub-01/out", []),
        ("data/out", []),
        ("data/derivatives", []),
        ("data/sub-01/../out", []),
        ("link/out", []),
        ("out", ["--work-dir", "data/work"]),
        ("out", ["-w", "link/derivatives/work"]),
        ("out", ["--bids-database-dir", "data/index"]),
        ("out", ["--unknown-option"]),
        ("out", ["--model", "unheard-of"]),
        pytest.param("out", ["--device", "cuda:99"], marks=pytest.mark.process),
    ],
)
def test_usage_is_64_and_the_input_is_never_written_to(
    one_scan: Path, tmp_path: Path, output: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("data")
    before = snapshot(one_scan)
    result = _harmonize(one_scan, output, arguments)
    assert (result.code, result.err.count("\n")) == (64, 1), result.err
    assert snapshot(one_scan) == before
    assert not Path("out").exists()


def test_an_output_folder_of_another_program_is_64_also_when_dry(one_scan: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "out/dataset_description.json"
    foreign.parent.mkdir()
    foreign.write_text('{"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}')
    for arguments in ([], ["--dry-run"]):
        result = harmonize(one_scan, tmp_path / "out", "participant", *arguments)
        assert (result.code, str(foreign) in result.err) == (64, True), arguments
    assert files(tmp_path / "out") == {"dataset_description.json"}


def test_bad_data_is_65_and_the_others_are_done(three: Path, tmp_path: Path) -> None:
    result = harmonize_apart(three, tmp_path / "out", "participant")
    assert result.code == 65
    assert scan_files(tmp_path / "out") == expected_files("sub-01_T1w.nii.gz", "sub-03_T1w.nii.gz")
    assert counts(result) == {"harmonized": 2, "failed": 1}
    failed = result.out.split("failed:\n")[1].splitlines()[0]
    assert str(three / "sub-02/anat/sub-02_T1w.nii.gz") in failed
    assert failed.strip() in result.err
    assert "Traceback" not in result.err + result.out


def test_a_failed_run_is_tried_again_and_the_others_are_not(three: Path, tmp_path: Path) -> None:
    assert harmonize(three, tmp_path / "out", "participant").code == 65
    again = harmonize(three, tmp_path / "out", "participant")
    assert (again.code, counts(again)) == (65, {"up to date": 2, "failed": 1})
    write_scan(three, "sub-02_T1w.nii.gz")
    mended = harmonize(three, tmp_path / "out", "participant")
    assert (mended.code, counts(mended)) == (0, {"harmonized": 1, "up to date": 2})


@pytest.mark.parametrize("missing", ["dataset", "model"])
def test_no_input_is_66(one_scan: Path, tmp_path: Path, missing: str) -> None:
    model = ["--model", str(tmp_path / "no.safetensors")] if missing == "model" else []
    dataset = tmp_path / "nowhere" if missing == "dataset" else one_scan
    result = harmonize(dataset, tmp_path / "out", "participant", *model)
    assert (result.code, result.err.count("\n")) == (66, 1)
    assert str(tmp_path / ("nowhere" if missing == "dataset" else "no.safetensors")) in result.err
    assert not (tmp_path / "out").exists()


def test_a_damaged_model_is_65(one_scan: Path, tmp_path: Path, own_model: Callable[..., Path]) -> None:
    weights = own_model()
    weights.write_bytes(weights.read_bytes()[:-1])
    result = harmonize(one_scan, tmp_path / "out", "participant", "--model", weights)
    assert (result.code, result.err.count("\n"), str(weights) in result.err) == (65, 1, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["file", "file/out"])
def test_an_output_folder_that_cannot_be_made_is_73(one_scan: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("in the way")
    result = harmonize(one_scan, tmp_path / output, "participant")
    assert (result.code, result.err.count("\n")) == (73, 1)
    assert str(tmp_path / output) in result.err
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(("limit", "arguments"), [(16_000, []), (500_000, ["--save-transform"])])
def test_a_full_disk_is_74_and_leaves_nothing_half_written(
    tmp_path: Path, limit: int, arguments: list[str]
) -> None:
    """A limit on the size of a file stops the larger image, or else its curves, as a full disk would."""
    dataset, output = write_dataset(tmp_path / "data"), tmp_path / "out"
    write_scan(dataset, "sub-01_T1w.nii.gz")
    write_scan(dataset, "sub-02_T1w.nii.gz", image_of(head(1, (8, 9, 8)), 20))
    result = harmonize_apart(
        dataset,
        output,
        "participant",
        *arguments,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert result.code == 74
    (line,) = (
        line for line in result.err.splitlines() if "/anat/" in line and "could not be written" in line
    )
    assert "sub-01" in line
    assert scan_files(output) == expected_files("sub-02_T1w.nii.gz", curves=bool(arguments))


# One failure never stops another


def test_the_crash_file_has_the_sentence_and_the_traceback(three: Path, tmp_path: Path) -> None:
    result = harmonize(three, tmp_path / "out", "participant")
    (crash,) = (tmp_path / "out/logs").glob("crash_*")
    text = crash.read_text()
    assert "sub-02" in crash.name
    assert text.startswith("sub-02/anat/sub-02_T1w.nii.gz\n")
    assert "Traceback (most recent call last)" in text
    sentence, details = (line.strip() for line in result.out.split("failed:\n")[1].splitlines()[:2])
    assert sentence in text
    assert details == f"details are in {crash}"


def test_stop_on_first_crash(three: Path, tmp_path: Path) -> None:
    result = harmonize(three, tmp_path / "out", "participant", "--stop-on-first-crash")
    assert result.code == 65
    assert scan_files(tmp_path / "out") == expected_files("sub-01_T1w.nii.gz")
    assert counts(result) == {"harmonized": 1, "failed": 1, "not started": 1}


@pytest.mark.parametrize("blocked", ["sub-01", "sub-01/anat", "image", "sidecar", "curves"])
def test_an_output_that_is_in_the_way_fails_one_run_only(tmp_path: Path, blocked: str) -> None:
    dataset, output = write_dataset(tmp_path / "data"), tmp_path / "out"
    for label in ("01", "02"):
        write_scan(dataset, f"sub-{label}_T1w.nii.gz")
    image = output_of(output, "sub-01_T1w.nii.gz")
    ending = {"image": ".nii.gz", "sidecar": ".json", "curves": "_curves.safetensors"}.get(blocked)
    if ending is None:
        (output / blocked).parent.mkdir(parents=True)
        (output / blocked).write_text("in the way")
    else:
        folder = image.with_name(image.name.replace(".nii.gz", ending))
        (folder / "not-empty").mkdir(parents=True)
    result = harmonize(dataset, output, "participant", "--save-transform")
    assert result.code == 73
    (line,) = (line for line in result.err.splitlines() if "sub-01" in line)
    assert "cannot be created" in line
    own = {name for name in scan_files(output) if name.startswith("sub-01/")}
    assert own == ({"sub-01/anat"} if blocked == "sub-01/anat" else set())
    assert expected_files("sub-02_T1w.nii.gz", curves=True) <= scan_files(output)


def test_too_little_memory_is_65_with_a_sentence(one_scan: Path, tmp_path: Path) -> None:
    result = harmonize(one_scan, tmp_path / "out", "participant", "--mem", "400MB")
    assert result.code == 65
    (line,) = result.err.splitlines()
    assert str(one_scan / "sub-01/anat/sub-01_T1w.nii.gz") in line
    assert "more than --mem allows" in line
    assert scan_files(tmp_path / "out") == set()
    assert harmonize(one_scan, tmp_path / "out", "participant", "--mem", "4GB").code == 0


# Output inside the input, other folders


def test_a_named_folder_of_derivatives_is_allowed_and_not_picked_up_as_input(one_scan: Path) -> None:
    before = snapshot(one_scan)
    output = one_scan / "derivatives" / "bids-harmonize"
    assert harmonize(one_scan, output, "participant").code == 0
    after = snapshot(one_scan)
    assert {name: after[name] for name in before} == before
    assert json.loads((output / "dataset_description.json").read_text())["DatasetLinks"] == {"raw": "../.."}
    assert counts(harmonize(one_scan, output, "participant", "-v")) == {"up to date": 1}


def test_an_index_is_made_outside_and_used_again(one_scan: Path, tmp_path: Path) -> None:
    before = snapshot(one_scan)
    for done in ("1 harmonized", "1 up to date"):
        result = harmonize(
            one_scan, tmp_path / "out", "participant", "--bids-database-dir", tmp_path / "index"
        )
        assert (result.code, done in result.out) == (0, True)
    assert files(tmp_path / "index") == {"layout_index.sqlite"}
    assert snapshot(one_scan) == before


def test_links_to_scans_are_read_through(one_scan: Path, tmp_path: Path) -> None:
    path = one_scan / "sub-01/anat/sub-01_T1w.nii.gz"
    shutil.move(path, tmp_path / "content.nii.gz")
    path.symlink_to(tmp_path / "content.nii.gz")
    assert harmonize(one_scan, tmp_path / "out", "participant").code == 0
    output = output_of(tmp_path / "out", "sub-01_T1w.nii.gz")
    assert not output.is_symlink()
    assert sidecar_of(output)["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]


def test_two_processes_may_share_the_output(raw: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), str(raw), str(tmp_path / "out"), "participant", *COMMON]
    started = [subprocess.Popen([*command, "--participant-label", label]) for label in ("01", "02")]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    assert scan_files(tmp_path / "out") == expected_files(*NAMES)
    assert files(tmp_path / "out") >= DATASET_FILES
    assert len(files(tmp_path / "out/logs")) == 2


# Tables of the group


def test_tables_list_what_the_sidecars_say(raw: Path, out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    before = snapshot(copy)
    result = harmonize(raw, copy, "group")
    assert result.code == 0
    endings = ("tsv", "json", "html")
    added = {f"group_{suffix}.{ending}" for suffix in ("T1w", "T2w") for ending in endings}
    after = snapshot(copy)
    assert set(after) - set(before) == added
    assert {name: after[name] for name in before} == before
    for suffix, scans in {"T1w": 3, "T2w": 1}.items():
        table = copy / f"group_{suffix}.tsv"
        assert f"{table}: {scans} scan" in result.out
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        assert len(rows) == scans
        dictionary = json.loads(table.with_suffix(".json").read_text())
        assert set(dictionary) == set(rows[0])
        for row in rows:
            record = sidecar_of(next(copy.rglob(row["scan"])))["BidsHarmonize"]
            assert row["model"] == record["Model"]
            assert float(row["gain_median"]) == record["Edit"]["Gain"]["Median"]
            assert float(row["seconds"]) == record["ElapsedSeconds"]
            assert int(row["edges"]) == record["Edit"]["OrderViolations"]["Edges"]
            distance = record["Edit"]["DistanceToTrainingDistribution"]
            assert float(row["distance_to_training"]) == distance


def test_tables_of_a_dry_run_are_named_and_not_written(raw: Path, out: Path) -> None:
    before = snapshot(out)
    result = harmonize(raw, out, "group", "--dry-run")
    assert (result.code, f"{out / 'group_T1w.tsv'}: 3 scans" in result.out) == (0, True)
    assert snapshot(out) == before


def test_unfinished_files_are_in_no_table(raw: Path, out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    # What a process that was killed may leave behind.
    unfinished = output_of(copy, NAMES[0]).parent / ".tmp-0-sub-01_desc-harmonized_T1w.json"
    unfinished.write_text("")
    result = harmonize(raw, copy, "group")
    assert (result.code, "group_T1w.tsv: 3 scans" in result.out) == (0, True), result.err


def test_sites_are_identified_by_the_requested_column(raw: Path, out: Path, tmp_path: Path) -> None:
    copies = tmp_path / "raw", tmp_path / "out"
    for original, copy in zip((raw, out), copies, strict=True):
        shutil.copytree(original, copy)
    people = sorted(path.name for path in raw.glob("sub-*"))
    rows = ["participant_id\thospital", *(f"{person}\t{n % 2}" for n, person in enumerate(people))]
    (copies[0] / "participants.tsv").write_text("\n".join(rows) + "\n")
    result = harmonize(*copies, "group", "--site-column", "hospital")
    assert (result.code, "2 sites, identified by the column “hospital”" in result.out) == (0, True), (
        result.err
    )
    assert "hospital" not in harmonize(*copies, "group").out
    wrong = harmonize(*copies, "group", "--site-column", "ward")
    assert (wrong.code, "no column 'ward'" in wrong.err) == (64, True)


@pytest.mark.parametrize(
    ("filters", "scans"),
    [
        (["--participant-label", "01"], {"T1w": 1, "T2w": 1}),
        (["--exclude-participant-label", "01"], {"T1w": 2}),
        (["--session-label", "b"], {"T1w": 1}),
        (["--modalities", "T2w"], {"T2w": 1}),
        (["--bids-filter-file", '{"t1w": {"acquisition": "fast"}, "t2w": {"run": 9}}'], {"T1w": 1}),
    ],
)
def test_the_group_is_that_which_was_asked_for(
    raw: Path, out: Path, tmp_path: Path, filters: list[str], scans: dict[str, int]
) -> None:
    if filters[0] == "--bids-filter-file":
        (tmp_path / "filters.json").write_text(filters[1])
        filters = [filters[0], str(tmp_path / "filters.json")]
    result = harmonize(raw, out, "group", "--dry-run", *filters)
    assert (result.code, result.err) == (0, "")
    for suffix in ("T1w", "T2w"):
        said = re.search(f"group_{suffix}.tsv: ([0-9]+) scans?\n", result.out)
        assert (int(said[1]) if said else None) == scans.get(suffix)


def test_what_is_in_no_report_is_named(raw: Path, out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    image = output_of(copy, NAMES[0])
    image.with_name(image.name.replace(".nii.gz", ".json")).unlink()
    result = harmonize(
        raw, copy, "group", "--participant-label", "01", "02", "77", "--session-label", "a", "z"
    )
    assert result.code == 0
    warned = result.err.splitlines()
    assert f"sub-77 has no result in {copy}; run the participant level on it first" in warned
    assert f"ses-z has no result in {copy}; run the participant level on it first" in warned
    assert any(line.startswith(f"{image} has no sidecar and is in no report") for line in warned) == (
        "ses-a" in str(image)
    )
    everyone = harmonize(raw, copy, "group", "--dry-run").err
    assert f"{image} has no sidecar and is in no report; run the participant level again" in everyone
    nobody = harmonize(raw, copy, "group", "--participant-label", "77")
    assert (nobody.code, "no result of the scans that were asked for" in nobody.err) == (18, True)


def test_group_without_results_is_18(one_scan: Path, tmp_path: Path) -> None:
    result = harmonize(one_scan, tmp_path / "out", "group")
    assert (result.code, "run the participant level first" in result.err) == (18, True)
    assert not (tmp_path / "out").exists()
