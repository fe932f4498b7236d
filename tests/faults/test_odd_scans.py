"""Odd but legal scans: read as they are meant, harmonized, and written on their own grid."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.html_page import Page
from tests.helpers.toy_datasets import (
    SPACING,
    Result,
    expected_files,
    harmonize,
    harmonize_image,
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

# A sum that overflows unnoticed is as bad as a crash.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

# All real types of NIfTI that this platform has; there is no float16.
TYPES = (
    *(np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)),
    np.dtype(np.float32),
    np.dtype(np.float64),
)
# Voxels are whole numbers that all of these types hold.
SMALL = (head(1) // 8).astype(np.int8)
# These voxels are air, as much as scans are padded with.
AIR = head(1) < 80
# Neighbours are compared if they differ by more than this share of the brightest value.
SEEN = 0.1
UNITS = (1e30, 1e38, 1e-30, 1e-41)


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A scan, and the one that it must agree with: in every bit, or as closely as rounding allows."""

    write: Callable[[Path], None]
    like: str | None = None
    exactly: bool = True
    ending: str = ".nii.gz"


def stored(
    voxels: NDArray[Any], dtype: np.dtype[Any] | None = None, *, order: str = "<", **fields: Any
) -> Callable[[Path], None]:
    """Write voxels as they are in a type and byte order, with header fields that nibabel would not write."""

    def write(path: Path) -> None:
        header = image_of(np.zeros(voxels.shape, np.float32)).header.copy().as_byteswapped(order)
        header.set_data_dtype((dtype or voxels.dtype).newbyteorder(order))
        header["magic"], header["vox_offset"] = b"n+1", 352
        header["scl_slope"], header["scl_inter"] = 1, 0
        for name, value in fields.items():
            header[name] = value
        body = voxels.astype(header.get_data_dtype()).tobytes(order="F")
        content = header.binaryblock + bytes(4) + body
        path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)

    return write


def saved(image: nib.Nifti1Image) -> Callable[[Path], None]:
    return lambda path: nib.save(image, path)


def oblique() -> nib.Nifti1Image:
    """Turned about two axes, with voxels of three sizes."""
    a, b = np.radians([23, -14])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    image = image_of(head(1))
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([8, 9, 10])
    affine[:3, 3] = [-60, -95, -40]
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    return image


def turned(*ornt: tuple[int, int]) -> nib.Nifti1Image:
    """The same scan, its axes in another order and direction."""
    return image_of(head(1)).as_reoriented(np.array(ornt))


def padded(value: float) -> NDArray[np.float32]:
    voxels = head(1).astype(np.float32)
    voxels[AIR] = value
    return voxels


SCANS: dict[str, Odd] = {
    "plain": Odd(write=saved(image_of(head(1)))),
    # Scans that differ in how voxels are stored.
    **{str(dtype): Odd(write=stored(SMALL, dtype), like="int8") for dtype in TYPES},
    **{f"big{dtype}": Odd(write=stored(SMALL, dtype, order=">"), like="int8") for dtype in TYPES},
    "unpacked": Odd(write=stored(head(1)), like="plain", ending=".nii"),
    "slope0": Odd(write=stored(head(1), scl_slope=0, scl_inter=7), like="plain"),
    "slopenan": Odd(write=stored(head(1), scl_slope=np.nan, scl_inter=np.nan), like="plain"),
    "values": Odd(write=stored((head(1) * 0.25 + 3).astype(np.float32))),
    "scaled": Odd(write=stored(head(1), scl_slope=0.25, scl_inter=3), like="values"),
    "scaledbig": Odd(write=stored(head(1), order=">", scl_slope=0.25, scl_inter=3), like="values"),
    "fourth": Odd(write=saved(image_of(head(1)[..., None])), like="plain"),
    "fifth": Odd(write=saved(image_of(head(1)[..., None, None])), like="plain"),
    "nifti2": Odd(
        write=lambda path: nib.save(nib.Nifti2Image(head(1), image_of(head(1)).affine), path), like="plain"
    ),
    "negativepixdim": Odd(write=stored(head(1), pixdim=[-1, *3 * [-SPACING], 1, 1, 1, 1]), like="plain"),
    # Scans that differ in what voxels hold.
    **{
        f"unit{place}": Odd(
            write=stored((head(1) / 1000.0).astype(np.float32) * np.float32(unit)),
            like="plain",
            exactly=False,
        )
        for place, unit in enumerate(UNITS)
    },
    "double": Odd(write=stored(head(1) * 1e35), like="plain", exactly=False),
    "zeros": Odd(write=stored(padded(0))),
    "nan": Odd(write=stored(padded(np.nan)), like="zeros"),
    "infinite": Odd(write=stored(padded(np.inf)), like="zeros"),
    # Scans that differ in how the volume lies.
    "oblique": Odd(write=saved(oblique())),
    "lefthanded": Odd(write=saved(turned((0, -1), (1, 1), (2, 1))), like="plain", exactly=False),
    "flipped": Odd(write=saved(turned((0, -1), (1, -1), (2, -1))), like="plain", exactly=False),
    "sagittal": Odd(write=saved(turned((2, 1), (0, -1), (1, 1))), like="plain", exactly=False),
    # Scans that differ in size.
    **{
        f"slices{n}{'xyz'[axis]}": Odd(
            write=saved(
                image_of(np.take(head(1), range(9, 9 + n), axis), [6 if k == axis else 9 for k in range(3)])
            )
        )
        for n in (1, 2, 3)
        for axis in range(3)
    },
    "fine": Odd(write=saved(image_of(head(1), 0.2))),
    "coarse": Odd(write=saved(image_of(head(1), 10.0))),
    "mixed": Odd(write=saved(image_of(head(1), (0.2, 10, 3)))),
}


def name_of(scan: str) -> str:
    return f"sub-{scan}_T1w{SCANS[scan].ending}"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A dataset of odd scans, what it was before, and what came of it."""

    raw: Path
    out: Path
    before: dict[str, tuple[str, int]]
    result: Result

    def given(self, scan: str) -> nib.Nifti1Image:
        return load(next(self.raw.glob(f"sub-{scan}/anat/{name_of(scan)}")))

    def got(self, scan: str) -> nib.Nifti1Image:
        return load(output_of(self.out, name_of(scan)))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    raw = write_dataset(tmp_path_factory.mktemp("odd") / "raw")
    for scan, odd in SCANS.items():
        path = raw / f"sub-{scan}" / "anat" / name_of(scan)
        path.parent.mkdir(parents=True)
        odd.write(path)
    _litter(raw)
    before = snapshot(raw)
    result = harmonize(raw, raw.parent / "out", "participant")
    return Done(raw=raw, out=raw.parent / "out", before=before, result=result)


def _litter(raw: Path) -> None:
    """Hidden files and folders, and scans where BIDS does not look for raw ones."""
    anat = raw / "sub-plain" / "anat"
    other = image_of(head(9)).to_bytes()
    for path in (
        anat / "._sub-plain_T1w.nii.gz",
        anat / ".sub-plain_T1w.nii",
        anat / ".sub-plain_T1w.json",
        anat / ".DS_Store",
        raw / ".heudiconv" / "sub-hidden" / "anat" / "sub-hidden_T1w.nii",
        raw / ".sub-hidden" / "anat" / "sub-hidden_T1w.nii",
        raw / "sub-plain" / ".anat" / "sub-plain_run-2_T1w.nii",
        raw / "sub-plain" / ".ses-1" / "anat" / "sub-plain_ses-1_T1w.nii",
        raw / "sourcedata" / "sub-source" / "anat" / "sub-source_T1w.nii",
        raw / "derivatives" / "other" / "sub-plain" / "anat" / "sub-plain_desc-other_T1w.nii",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(other)


def test_all_are_harmonized_and_nothing_else(done: Done, tally: Counter[str]) -> None:
    """Every odd scan is harmonized and has its page; hidden files and other folders are no scans."""
    tally["odd scans"] += len(SCANS)
    assert done.result.code == 0, done.result.out
    assert "Traceback" not in done.result.err
    assert scan_files(done.out) == expected_files(*map(name_of, SCANS))
    assert {path.stem for path in done.out.glob("*.html")} == {f"sub-{scan}" for scan in SCANS}
    assert snapshot(done.raw) == done.before


@pytest.mark.parametrize("scan", SCANS)
def test_grid_is_kept_and_values_are_finite(done: Done, scan: str) -> None:
    """docs, Outputs: the grid, codes and units of the input, float32, finite and never negative."""
    given, got = done.given(scan), done.got(scan)
    assert got.shape == given.shape
    assert got.get_data_dtype().newbyteorder("=") == np.float32
    assert np.array_equal(got.affine, given.affine)
    for form in ("qform", "sform"):
        (matrix, code), (expected, expected_code) = (
            getattr(image, f"get_{form}")(coded=True) for image in (got, given)
        )
        assert int(code) == int(expected_code)
        assert np.array_equal(matrix, expected)
    for field in ("dim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"):
        assert np.array_equal(got.header[field], given.header[field]), field
    assert np.array_equal(np.abs(got.header["pixdim"][1:]), np.abs(given.header["pixdim"][1:]))
    voxels = np.asarray(got.dataobj)
    assert np.isfinite(voxels).all()
    assert voxels.min() >= 0
    json.dumps(sidecar_of(output_of(done.out, name_of(scan))), allow_nan=False)


@pytest.mark.parametrize("scan", SCANS)
def test_what_is_brighter_stays_brighter(done: Done, scan: str) -> None:
    """README: what is brighter than its surroundings stays brighter: neighbours whose difference is seen."""
    given = np.nan_to_num(done.given(scan).get_fdata(), posinf=0).squeeze()
    got = np.asarray(done.got(scan).dataobj).squeeze()
    reversed_pairs = edges = 0
    for axis in range(given.ndim):
        change = np.diff(given / given.max(), axis=axis)
        seen = np.abs(change) > SEEN
        edges += np.count_nonzero(seen)
        reversed_pairs += np.count_nonzero(seen & (np.sign(np.diff(got, axis=axis)) != np.sign(change)))
    assert edges > 100
    assert reversed_pairs == 0


@pytest.mark.parametrize("scan", [scan for scan, odd in SCANS.items() if odd.like])
def test_what_means_the_same_gives_the_same(done: Done, scan: str) -> None:
    """Type, byte order, slope, packing and padding change no bit; unit and order of axes, no value."""
    odd = SCANS[scan]
    assert odd.like is not None
    expected, got = done.got(odd.like), done.got(scan)
    if odd.exactly:
        assert np.array_equal(np.asarray(got.dataobj).reshape(expected.shape), np.asarray(expected.dataobj))
    else:
        same = nib.as_closest_canonical(got)
        assert np.allclose(same.affine, expected.affine)
        np.testing.assert_allclose(same.get_fdata(), expected.get_fdata(), rtol=1e-3, atol=0.5)


@pytest.mark.parametrize("scan", ["plain", "biguint64", "scaledbig", "unit1", "slices1x", "mixed"])
def test_one_file_alone_gives_the_same(done: Done, tmp_path: Path, tally: Counter[str], scan: str) -> None:
    """docs, One image: the same voxels as in a dataset."""
    result = harmonize_image(done.given(scan).get_filename(), tmp_path / "out.nii.gz")
    tally["odd scans"] += 1
    assert result.code == 0, result.err
    assert np.array_equal(voxels_of(tmp_path / "out.nii.gz"), voxels_of(output_of(done.out, name_of(scan))))


def test_what_32_bits_cannot_hold_is_refused(tmp_path: Path, tally: Counter[str]) -> None:
    """What is too bright for float32 is told as such: set to 0, the brightest tissue would be the darkest."""
    raw = write_dataset(tmp_path / "raw")
    values = {"all": head(1) * 1e300, "some": head(1) * 7e35, "dark": head(1) * 1e-300}
    for scan, voxels in values.items():
        path = write_scan(raw, f"sub-{scan}_T1w.nii.gz")
        stored(voxels)(path)
    result = harmonize(raw, tmp_path / "out", "participant")
    tally["odd scans"] += len(values)
    assert result.code == 65
    said = {scan: line for line in result.err.splitlines() for scan in values if f"sub-{scan}_" in line}
    for scan in ("all", "some"):
        assert "sub-" + scan + "_T1w.nii.gz holds values that 32-bit floats cannot" in said[scan]
    assert "is all zeros (as 32-bit floats)" in said["dark"]
    assert scan_files(tmp_path / "out") == set()


# DataLad


def annexed(path: Path, dataset: Path, *, content: bool = True) -> Path:
    """Put a file into the annex of its dataset, as git-annex does; where its content lies."""
    data = path.read_bytes()
    key = f"MD5E-s{len(data)}--{sha256(path)[:32]}{''.join(path.suffixes)}"
    store = dataset / ".git" / "annex" / "objects" / "Xx" / "Yy" / key / key
    store.parent.mkdir(parents=True, exist_ok=True)
    path.unlink()
    path.symlink_to(os.path.relpath(store, path.parent))
    if content:
        store.write_bytes(data)
        store.chmod(0o444)
    return store


@pytest.fixture
def datalad(tmp_path: Path) -> Path:
    """A DataLad dataset: images and sidecars are links into its annex."""
    raw = write_dataset(tmp_path / "raw")
    (raw / ".datalad").mkdir()
    (raw / ".datalad" / "config").write_text('[datalad "dataset"]\n\tid = x\n')
    for seed, label in enumerate(("here", "gone")):
        image = image_of(head(seed))
        path = write_scan(raw, f"sub-{label}_T1w.nii.gz", image, {"Manufacturer": label})
        annexed(path.with_name(f"sub-{label}_T1w.json"), raw)
        annexed(path, raw, content=label == "here")
    return raw


def test_datalad_content_that_is_here_is_read_and_what_is_not_is_told(
    datalad: Path, tmp_path: Path, tally: Counter[str]
) -> None:
    """A link into the annex is a scan like any other; a dangling one says which command fetches it."""
    before = snapshot(datalad)
    result = harmonize(datalad, tmp_path / "out", "participant")
    tally["DataLad trees"] += 1
    assert result.code == 65
    gone = datalad / "sub-gone/anat/sub-gone_T1w.nii.gz"
    (line,) = (line for line in result.err.splitlines() if str(gone) in line)
    assert f"datalad get {gone}" in line
    assert scan_files(tmp_path / "out") == expected_files("sub-here_T1w.nii.gz")
    output = output_of(tmp_path / "out", "sub-here_T1w.nii.gz")
    assert (output.is_symlink(), sidecar_of(output)["Manufacturer"]) == (False, "here")
    # The picture before is of the original, through its link.
    assert len(Page((tmp_path / "out/sub-here.html").read_text()).all("img")) == 9
    assert snapshot(datalad) == before
    alone = harmonize_image(gone, tmp_path / "alone.nii.gz")
    assert (alone.code, alone.err.count("\n"), f"datalad get {gone}" in alone.err) == (66, 1, True)


@pytest.mark.parametrize("alone", [False, True])
def test_a_pointer_of_git_annex_is_told_like_a_dangling_link(
    tmp_path: Path, tally: Counter[str], alone: bool
) -> None:
    """On an adjusted branch a file without content is no link, but a line of text in its place."""
    path = write_scan(write_dataset(tmp_path / "raw"), "sub-01_T1w.nii.gz")
    path.write_text("/annex/objects/MD5E-s12--0123456789abcdef.nii.gz\n")
    tally["DataLad trees"] += 1
    if alone:
        result = harmonize_image(path, tmp_path / "out.nii.gz")
        assert result.code == 66
    else:
        result = harmonize(tmp_path / "raw", tmp_path / "out", "participant")
        assert result.code == 65
    (line,) = result.err.splitlines()
    assert f"datalad get {path}" in line


def test_results_kept_in_an_annex_are_done_and_replaced_but_never_written_through(
    tmp_path: Path, tally: Counter[str]
) -> None:
    """Derivatives in DataLad: links are results that are done; ``--force`` puts files in their place."""
    raw, out = write_dataset(tmp_path / "raw"), tmp_path / "out"
    write_scan(raw, "sub-01_T1w.nii.gz")
    assert harmonize(raw, out, "participant").code == 0
    names = expected_files("sub-01_T1w.nii.gz") | {"sub-01.html", "dataset_description.json", ".bidsignore"}
    stores = [annexed(out / name, out) for name in sorted(names)]
    kept = [(sha256(store), store.stat().st_mtime_ns) for store in stores]
    tally["DataLad trees"] += 1
    assert "1 up to date" in harmonize(raw, out, "participant").out
    assert (out / "sub-01.html").is_symlink()
    assert "1 harmonized" in harmonize(raw, out, "participant", "--force", "--seed", "3").out
    assert not any((out / name).is_symlink() for name in expected_files("sub-01_T1w.nii.gz"))
    assert [(sha256(store), store.stat().st_mtime_ns) for store in stores] == kept
