"""FreeSurfer's images: the same voxels as of NIfTI, the same checks, and their own header kept."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer.mghformat import MGHImage
from numpy.typing import NDArray

from tests.helpers.toy_datasets import harmonize_image, head

# The axes of a conformed volume: left, inferior, anterior.
CONFORMED = np.array([[-1.0, 0, 0, 20], [0, 0, 1, -18], [0, -1, 0, 15], [0, 0, 0, 1]])
# The byte of the header where it says whether its grid is known.
GRID_KNOWN = 28
# Of the header that nibabel leaves alone: repetition time, flip angle, echo time, inversion time.
PARAMETERS = {"tr": 2300.0, "flip_angle": 0.157, "te": 2.9, "ti": 900.0}


def conformed(folder: Path, name: str = "orig.mgz") -> Path:
    """A head of bytes, as FreeSurfer conforms it."""
    voxels = np.rint(np.clip(head(1) / np.percentile(head(1), 99.9), 0, 1) * 255).astype(np.uint8)
    image = MGHImage(voxels, CONFORMED)
    for key, value in PARAMETERS.items():
        image.header[key] = value
    nib.save(image, folder / name)
    return folder / name


def voxels_of(path: Path) -> NDArray[np.float32]:
    return np.asarray(nib.load(path).dataobj, dtype=np.float32)


@pytest.mark.parametrize("ending", [".mgz", ".mgh"])
def test_a_conformed_volume_keeps_its_grid_and_parameters(
    tmp_path: Path, random_model: Path, ending: str
) -> None:
    source = conformed(tmp_path, f"orig{ending}")
    out = tmp_path / f"out{ending}"
    assert harmonize_image(source, out, "--model", random_model).code == 0
    before, after = nib.load(source), nib.load(out)
    assert isinstance(after, MGHImage)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.shape == before.shape
    assert after.get_data_dtype().newbyteorder("=") == np.float32
    for key in PARAMETERS:
        assert after.header[key] == before.header[key]
    assert (tmp_path / "out.json").is_file()


def test_voxels_are_those_of_the_same_scan_as_nifti(tmp_path: Path, random_model: Path) -> None:
    source = conformed(tmp_path)
    image = nib.load(source)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), tmp_path / "orig.nii.gz")
    outputs = [tmp_path / name for name in ("a.mgz", "b.nii.gz", "c.nii.gz", "d.mgz")]
    sources = [source, source, tmp_path / "orig.nii.gz", tmp_path / "orig.nii.gz"]
    for one, out in zip(sources, outputs, strict=True):
        assert harmonize_image(one, out, "--model", random_model).code == 0
    expected = voxels_of(outputs[0])
    assert np.ptp(expected) > 0
    for out in outputs[1:]:
        np.testing.assert_array_equal(voxels_of(out), expected)
        np.testing.assert_allclose(nib.load(out).affine, CONFORMED)


def test_again_gives_the_same_bytes(tmp_path: Path, random_model: Path) -> None:
    source = conformed(tmp_path)
    for name in ("a.mgz", "b.mgz"):
        assert harmonize_image(source, tmp_path / name, "--model", random_model).code == 0
    assert (tmp_path / "a.mgz").read_bytes() == (tmp_path / "b.mgz").read_bytes()


def test_a_grid_that_is_not_known_is_told(tmp_path: Path, random_model: Path) -> None:
    source = conformed(tmp_path, "orig.mgh")
    content = bytearray(source.read_bytes())
    content[GRID_KNOWN : GRID_KNOWN + 2] = bytes(2)
    source.write_bytes(content)
    result = harmonize_image(source, tmp_path / "out.mgz", "--model", random_model)
    assert result.code == 0
    assert "its orientation is unknown" in result.err


def damaged(folder: Path, what: str) -> Path:
    """A file that cannot be used."""
    source = conformed(folder)
    content = source.read_bytes()
    if what == "truncated":
        source.write_bytes(content[: len(content) // 2])
    elif what == "wrong checksum":
        source.write_bytes(content[:-8] + bytes(4) + content[-4:])
    elif what == "no image":
        source.write_bytes(gzip.compress(b"nothing" * 100))
    elif what == "not compressed":
        source.write_bytes(gzip.decompress(content))
    elif what == "series":
        nib.save(MGHImage(np.ones((5, 5, 5, 2), np.float32), np.eye(4)), source)
    elif what == "empty":
        source.write_bytes(b"")
    return source


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("truncated", "is not a readable FreeSurfer image"),
        ("wrong checksum", "is truncated or corrupt"),
        ("no image", "is not a readable FreeSurfer image"),
        ("not compressed", "is not a readable FreeSurfer image"),
        ("series", "is not one 3-D volume but 5 x 5 x 5 x 2"),
        ("empty", "is empty"),
    ],
)
def test_damage_is_told_in_one_sentence(tmp_path: Path, random_model: Path, what: str, sentence: str) -> None:
    source = damaged(tmp_path, what)
    before = source.read_bytes()
    result = harmonize_image(source, tmp_path / "out.mgz", "--model", random_model)
    assert result.code == 65
    assert result.err.count("\n") == 1
    assert str(source) in result.err and sentence in result.err
    assert source.read_bytes() == before
    assert not (tmp_path / "out.mgz").exists() and not (tmp_path / "out.json").exists()
