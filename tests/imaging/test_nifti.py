"""NIfTI in and out: every bad input has its sentence, and an output lies on the grid of its input."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bids_harmonize.errors import BadData, HarmonizeError, NoInput
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.nifti import (
    as_magnitude,
    forms_agree,
    open_image,
    read_voxels,
    with_voxels,
    zooms,
)

SHAPE = (6, 7, 8)
VOXELS = np.random.default_rng(0).uniform(1, 1000, SHAPE).astype(np.float32)
GRID_FIELDS = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def saved(path: Path, voxels: NDArray[Any] = VOXELS, affine: NDArray[Any] | None = None) -> Path:
    image = Nifti1Image(voxels, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def with_header(path: Path, **fields: Any) -> Path:
    """An image whose header holds values that nibabel would not write."""
    saved(path)
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


def refused(path: Path, error: type[HarmonizeError], *words: str) -> str:
    """Read the file; return the one sentence with which it is refused."""
    with pytest.raises(error) as caught:
        read_voxels(open_image(path))
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# --- Files that cannot be read ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_text_is_no_nifti(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("Dear colleague, the scan follows by mail. " * 20)
    refused(path, BadData, "NIfTI")


def test_another_image_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mnc"
    path.write_bytes(b"CDF" + bytes(100))
    refused(path, BadData, "not a NIfTI image")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    refused(tmp_path / name, BadData, "empty")


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.95, 0.999])
def test_truncated_gz(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path / "a.nii.gz", np.random.default_rng(1).random((20, 20, 20)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, BadData)


def test_truncated_nii(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, BadData, "truncated")


def test_corrupt_gz(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz", np.random.default_rng(1).random((20, 20, 20)))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    refused(path, BadData, "corrupt")


def test_gz_with_a_wrong_checksum(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF
    path.write_bytes(content)
    refused(path, BadData, "corrupt")


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "a.nii", NoInput, "does not exist")


def test_dangling_link_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.symlink_to(tmp_path / ".git" / "annex" / "key")
    assert f"datalad get {path}" in refused(path, NoInput)


def test_link_to_content_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "key.nii")
    (tmp_path / "a.nii").symlink_to("key.nii")
    np.testing.assert_array_equal(read_voxels(open_image(tmp_path / "a.nii")), VOXELS)


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").mkdir()
    refused(tmp_path / "a.nii.gz", BadData, "not a file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_without_permission(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii")
    path.chmod(0)
    refused(path, NoInput, "permissions")


# --- Images that are not one magnitude volume -------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 5, 5, 2), (5, 5, 5, 1, 3), (5, 5)])
def test_not_one_volume(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path / "a.nii", np.random.default_rng(0).random(shape).astype(np.float32))
    refused(path, BadData, "x".join(f" {n} " for n in shape).strip())


def test_not_one_volume_in_memory() -> None:
    image = Nifti1Image(np.stack([VOXELS, VOXELS], axis=3), np.eye(4))
    with pytest.raises(BadData, match="the image is not one 3-D volume but 6 x 7 x 8 x 2"):
        read_voxels(image)


@pytest.mark.parametrize("shape", [(5, 6, 7, 1), (5, 6, 7, 1, 1), (1, 6, 7), (5, 6, 1)])
def test_one_volume_keeps_its_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    voxels = np.random.default_rng(0).uniform(1, 9, shape).astype(np.float32)
    image = open_image(saved(tmp_path / "a.nii", voxels))
    read = read_voxels(image)
    assert read.shape == shape[:3]
    result = with_voxels(image, read)
    assert result.shape == image.shape
    np.testing.assert_array_equal(result.get_fdata(), voxels)


@pytest.mark.parametrize(
    "dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])], ids=["complex", "RGB"]
)
def test_colour_and_complex_voxels(tmp_path: Path, dtype: np.dtype[Any]) -> None:
    path = tmp_path / "a.nii"
    voxels = np.zeros(SHAPE, dtype)
    nib.save(Nifti1Image(voxels, np.eye(4), dtype=voxels.dtype), path)
    refused(path, BadData, "colour or complex")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_real_voxels_are_read_as_float32(tmp_path: Path, dtype: type) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    read = read_voxels(open_image(saved(tmp_path / "a.nii.gz", voxels)))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, voxels)


def test_stored_slope_and_intercept_are_used(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    image = Nifti1Image(VOXELS, np.eye(4))
    image.header.set_data_dtype(np.int16)
    nib.save(image, path)
    np.testing.assert_allclose(read_voxels(open_image(path)), VOXELS, atol=0.02)


# --- Images without content -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        (np.zeros(SHAPE), "all zeros"),
        (np.full(SHAPE, 7.0), "constant (7 everywhere)"),
        (np.full(SHAPE, np.nan), "no finite value"),
        (np.full(SHAPE, np.inf), "no finite value"),
        (np.where(VOXELS < 500, np.nan, 3.0), "constant"),
        (VOXELS - VOXELS.mean(), "negative"),
        ((VOXELS - VOXELS.mean()) / VOXELS.std(), "negative"),
        (-VOXELS, "100 %"),
        (np.where(VOXELS < 500, -1024.0, VOXELS), "Hounsfield"),
    ],
    ids=["zeros", "constant", "NaN", "Inf", "constant and NaN", "centred", "z-score", "inverted", "CT"],
)
def test_nothing_to_harmonize(tmp_path: Path, voxels: NDArray[Any], words: str) -> None:
    refused(saved(tmp_path / "a.nii.gz", voxels.astype(np.float32)), BadData, words)


# --- Header -----------------------------------------------------------------------------------------------


def test_singular_affine(tmp_path: Path) -> None:
    path = with_header(tmp_path / "a.nii", srow_x=[0, 0, 0, 0], sform_code=1)
    refused(path, BadData, "affine")


def test_affine_that_is_not_finite(tmp_path: Path) -> None:
    path = with_header(tmp_path / "a.nii", srow_x=[np.nan, 0, 0, 0], sform_code=1)
    refused(path, BadData, "affine")


def test_absurd_voxel_size(tmp_path: Path) -> None:
    refused(saved(tmp_path / "a.nii", affine=np.diag([1000.0, 1, 1, 1])), BadData, "6000 x 7 x 8 mm")


def test_wrong_unit(tmp_path: Path) -> None:
    refused(with_header(tmp_path / "a.nii", xyzt_units=1), BadData, "unit")


@pytest.mark.parametrize(
    ("unit", "factor"), [("meter", 1e-3), ("mm", 1.0), ("micron", 1e3), ("unknown", 1.0)]
)
def test_zooms_are_millimetres_whatever_the_unit(unit: str, factor: float) -> None:
    affine = np.diag([0.5 * factor, 1.0 * factor, 3.0 * factor, 1])
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix() @ affine[:3, :3]
    image = Nifti1Image(VOXELS, affine)
    image.header.set_xyzt_units(unit)
    assert zooms(image) == pytest.approx((0.5, 1.0, 3.0), rel=1e-5)


@pytest.mark.parametrize("code", [5, 7, 60])
def test_undefined_unit_is_no_traceback(tmp_path: Path, code: int) -> None:
    image = open_image(with_header(tmp_path / "a.nii", xyzt_units=code))
    assert zooms(image) == pytest.approx((1.0, 1.0, 1.0))


@given(
    place=st.integers(0, 347),
    content=st.binary(min_size=1, max_size=16),
    infinite=st.sampled_from([(), ("vox_offset",), ("scl_slope",), ("pixdim",)]),
)
def test_damaged_header_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, place: int, content: bytes, infinite: tuple[str, ...]
) -> None:
    path = with_header(tmp_path_factory.getbasetemp() / "damaged.nii", **dict.fromkeys(infinite, np.inf))
    damaged = bytearray(path.read_bytes())
    damaged[place : place + len(content)] = content
    path.write_bytes(damaged)
    try:
        voxels = read_voxels(open_image(path))
    except HarmonizeError as error:
        assert path.name in str(error)
    else:
        assert voxels.ndim == 3


# --- Values -----------------------------------------------------------------------------------------------


def test_values_that_are_not_finite_become_zero_and_are_counted() -> None:
    voxels = VOXELS.copy()
    voxels[0, 0, :3] = np.nan
    voxels[1, 1, :2] = np.inf
    voxels[2, 2, 0] = -np.inf
    result, replaced, negative = as_magnitude(voxels)
    assert (replaced, negative) == (6, 0)
    assert np.count_nonzero(result == 0) == 6
    np.testing.assert_array_equal(result[3:], VOXELS[3:])


def test_small_negative_values_become_zero_and_are_counted(tmp_path: Path) -> None:
    voxels = VOXELS.copy()
    voxels[0, 0, :4] = -3
    read = read_voxels(open_image(saved(tmp_path / "a.nii", voxels)))
    result, replaced, negative = as_magnitude(read)
    assert (replaced, negative) == (0, 4)
    assert result.min() == 0
    np.testing.assert_array_equal(result[1:], VOXELS[1:])


def test_magnitude_image_is_not_copied() -> None:
    assert as_magnitude(VOXELS)[0] is VOXELS


# --- Output -----------------------------------------------------------------------------------------------


@st.composite
def images(draw: st.DrawFn) -> Nifti1Image:
    """Images of every kind of grid: oblique, flipped, with both, one or none of the forms."""
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    sizes = draw(st.tuples(*[st.floats(0.2, 6) | st.floats(-6, -0.2)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(sizes)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    other = affine.copy()
    other[:3, 3] += draw(st.sampled_from([0.0, 12.5]))
    kind = draw(st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]))
    image = kind(VOXELS, affine)
    image.set_qform(affine, draw(st.integers(0, 4)))
    image.set_sform(other, draw(st.integers(0, 4)))
    image.header.set_xyzt_units(*draw(st.sampled_from([("mm", "sec"), ("mm", None), (None, None)])))
    image.header.set_data_dtype(draw(st.sampled_from([np.int16, np.float32, np.float64])))
    image.header["cal_max"] = 500
    return image


@given(images(), st.sampled_from([".nii", ".nii.gz"]))
@settings(max_examples=60)
def test_output_has_the_grid_of_the_input(
    tmp_path_factory: pytest.TempPathFactory, image: Nifti1Image, extension: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    nib.save(image, folder / f"grid{extension}")
    given_image = open_image(folder / f"grid{extension}")
    nib.save(with_voxels(given_image, VOXELS * np.float32(2.5)), folder / f"same-grid{extension}")
    result = nib.load(folder / f"same-grid{extension}")
    assert type(result) is type(given_image)
    for field in GRID_FIELDS:
        np.testing.assert_array_equal(result.header[field], given_image.header[field], err_msg=field)
    np.testing.assert_array_equal(result.affine, given_image.affine)
    assert result.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(result.dataobj), VOXELS * np.float32(2.5))
    assert result.header["cal_max"] == 0


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_slope_in_the_bytes_is_one_and_intercept_zero(tmp_path: Path, dtype: type) -> None:
    image = Nifti1Image(VOXELS, np.eye(4))
    image.header.set_data_dtype(dtype)
    nib.save(image, tmp_path / "in.nii")
    nib.save(with_voxels(open_image(tmp_path / "in.nii"), VOXELS), tmp_path / "out.nii.gz")
    content = gzip.decompress((tmp_path / "out.nii.gz").read_bytes())
    assert np.frombuffer(content, "<f4", 2, 112).tolist() == [1, 0]
    assert np.frombuffer(content, "<i2", 2, 70).tolist() == [16, 32]


def test_input_is_left_alone(tmp_path: Path) -> None:
    image = open_image(saved(tmp_path / "a.nii"))
    before = image.header.binaryblock
    with_voxels(image, np.zeros(SHAPE, np.float32))
    assert image.header.binaryblock == before
    np.testing.assert_array_equal(read_voxels(image), VOXELS)


# --- Intensity scale --------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e6))
def test_intensity_scale_is_linear(factor: float) -> None:
    scaled = intensity_scale(VOXELS * np.float32(factor))
    assert scaled == pytest.approx(factor * intensity_scale(VOXELS), rel=1e-4)


@given(st.tuples(*[st.integers(0, 12)] * 3))
def test_intensity_scale_ignores_air(margins: tuple[int, int, int]) -> None:
    padded = np.pad(VOXELS, [(n, n) for n in margins])
    assert intensity_scale(padded) == intensity_scale(VOXELS)


def test_intensity_scale_hardly_sees_noise_in_the_air(head_volume: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(0)
    padded = np.abs(rng.normal(0, 3, [n + 40 for n in head_volume.shape])).astype(np.float32)
    padded[20:-20, 20:-20, 20:-20] = head_volume
    assert intensity_scale(padded) == pytest.approx(intensity_scale(head_volume), rel=0.01)


def test_intensity_scale_of_a_large_volume_is_that_of_its_voxels() -> None:
    voxels = np.random.default_rng(0).gamma(2, 100, (160, 160, 160)).astype(np.float32)
    foreground = voxels[voxels > 0.1 * np.percentile(voxels, 99.5)]
    assert intensity_scale(voxels) == pytest.approx(np.percentile(foreground, 99), rel=0.01)


def test_intensity_scale_of_few_voxels_that_the_sample_may_miss() -> None:
    voxels = np.zeros((160, 160, 160), np.float32)
    voxels[81, 83, 85] = 50
    assert intensity_scale(voxels) == 50


# --- Small faults of headers ------------------------------------------------------------------------------


def test_a_quaternion_off_by_rounding_is_accepted(tmp_path: Path) -> None:
    half = np.float32(np.sqrt(0.5))
    path = with_header(
        tmp_path / "a.nii", sform_code=0, qform_code=1, quatern_b=half * 1.0001, quatern_c=half, quatern_d=0
    )
    image = open_image(path)
    np.testing.assert_allclose(image.affine[:3, :3], [[0, 1, 0], [1, 0, 0], [0, 0, -1]], atol=1e-3)
    copy = with_voxels(image, read_voxels(image))
    np.testing.assert_allclose(copy.affine, image.affine, atol=1e-6)
    copy.header.get_qform()


def test_a_quaternion_that_is_none_is_refused(tmp_path: Path) -> None:
    path = with_header(tmp_path / "a.nii", sform_code=0, qform_code=1, quatern_b=0.9, quatern_c=0.9)
    refused(path, BadData)


@pytest.mark.parametrize("unit", ["micron", "meter"])
def test_a_unit_wrong_by_a_thousand(tmp_path: Path, unit: str) -> None:
    image = Nifti1Image(VOXELS, np.eye(4))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    refused(tmp_path / "a.nii", BadData, "correct the voxel size or its unit")


def test_forms_that_disagree_are_seen(tmp_path: Path) -> None:
    image = Nifti1Image(VOXELS, np.eye(4))
    image.set_qform(np.eye(4), 1)
    for shift, agrees in ((0.0, True), (0.9, True), (1.1, False)):
        moved = np.eye(4)
        moved[0, 3] = shift
        image.set_sform(moved, 1)
        assert forms_agree(image) == agrees
    image.set_sform(moved, 0)
    assert forms_agree(image)


@pytest.mark.parametrize(("ending", "advice"), [(".nii", "name it .nii.gz"), (".nii.gz", "name it .nii,")])
def test_an_ending_that_does_not_fit_the_content(tmp_path: Path, ending: str, advice: str) -> None:
    content = saved(tmp_path / "right.nii").read_bytes()
    wrong = tmp_path / f"a{ending}"
    wrong.write_bytes(gzip.compress(content) if ending == ".nii" else content)
    refused(wrong, BadData, advice)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float64])
def test_the_same_values_are_the_same_voxels_however_stored(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(1).integers(0, 250, SHAPE).astype(dtype)
    voxels = read_voxels(open_image(saved(tmp_path / "a.nii.gz", values)))
    np.testing.assert_array_equal(voxels, values.astype(np.float32))


# --- Integers that wrapped around, and scales that were clipped ---------------------------------------------


def bright_head(largest: int) -> NDArray[np.float64]:
    """A ball, brightest in its middle, in a little noise."""
    x, y, z = np.ogrid[-1:1:24j, -1:1:24j, -1:1:24j]
    shading = np.clip(1.2 - np.sqrt(x**2 + y**2 + z**2), 0, None) / 1.2
    return np.rint(shading * largest + np.random.default_rng(0).uniform(0, 20, shading.shape))


@pytest.mark.parametrize("largest", [38_000, 45_000, 65_000])
def test_unsigned_integers_stored_as_signed_ones_are_refused(tmp_path: Path, largest: int) -> None:
    values = bright_head(largest).astype(np.uint16)
    read_voxels(open_image(saved(tmp_path / "right.nii.gz", values)))
    wrapped = saved(tmp_path / "wrapped.nii.gz", values.view(np.int16))
    message = refused(wrapped, BadData, "wrapped around", "uint16")
    assert f"{np.count_nonzero(values > 32_767)} of its brightest" in message


@settings(max_examples=20, deadline=None)
@given(st.integers(100, 32_000), st.integers(1, 60), st.integers(0, 99))
def test_stray_negatives_and_large_values_pass(largest: int, strays: int, seed: int) -> None:
    values = bright_head(largest).clip(0, 32_767).astype(np.int16)
    rng = np.random.default_rng(seed)
    places = tuple(rng.integers(0, 24, (3, strays)))
    values[places] = -rng.integers(1, 1 + largest // 20, strays)
    read_voxels(Nifti1Image(values, np.eye(4)))


def test_one_marker_far_below_zero_is_no_wrap(tmp_path: Path) -> None:
    values = bright_head(32_000).clip(0, 32_767).astype(np.int16)
    values[0, 0, :2] = -32_768
    read_voxels(open_image(saved(tmp_path / "a.nii", values)))


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.int16, 4095), (np.int16, 32_767)])
def test_a_clipped_scale_is_refused_and_a_window_of_a_viewer_passes(
    tmp_path: Path, dtype: type, largest: int
) -> None:
    head = bright_head(1000)
    tissue = head[head > 100]
    for share, wanted in ((0.03, True), (0.25, False)):
        top = np.quantile(tissue, 1 - share)
        clipped = np.rint(np.minimum(head / top, 1) * largest).astype(dtype)
        path = saved(tmp_path / "a.nii.gz", clipped)
        if wanted:
            read_voxels(open_image(path))
        else:
            refused(path, BadData, "is clipped", f"the largest value, {largest}")


def test_a_negative_slope_is_no_wrap(tmp_path: Path) -> None:
    values = bright_head(32_000).clip(0, 32_767)
    path = saved(tmp_path / "a.nii", -values.astype(np.int16))
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content))
    header["scl_slope"], header["scl_inter"] = -1, 0
    content[:348] = header.binaryblock
    path.write_bytes(content)
    np.testing.assert_array_equal(read_voxels(open_image(path)), values.astype(np.float32))
