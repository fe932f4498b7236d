"""Images in and out, with the grid and the header kept: NIfTI, and FreeSurfer's as NIfTI in memory.

Every check fails with one sentence that names the file and says what is wrong and what to do.
"""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedWriter, IOBase
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import FileBasedImage
from nibabel.fileholders import FileHolder
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.nifti1 import Nifti1Image

from bids_harmonize.errors import OUT_OF_MEMORY, BadData
from bids_harmonize.imaging import freesurfer
from bids_harmonize.imaging.nifti_integrity import (
    check_content,
    check_header,
    check_readable,
    check_volume,
    os_reason,
)
from bids_harmonize.imaging.types import Voxels

# The header's codes of metre, millimetre and micron; any other code is taken for millimetres.
MILLIMETRES_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
# No scanner's bore is wider; a larger extent means that the header's voxel size is wrong.
MAX_EXTENT_MM = 1500.0
# No scan shows less; a smaller extent means the same.
MIN_EXTENT_MM = 1.0
# Corners of the volume that qform and sform put this far apart are rounding errors.
SAME_PLACE_MM = 1.0
# Unit quaternions may be off by this much: headers hold 32-bit floats, and some programs round.
QUATERNION_ERROR = 1e-3
# A compressed file is read up to this multiple of the length that its header implies: compressed zeros grow a
# thousandfold, and a hostile file must not fill memory or time.
MAX_LENGTH_RATIO = 2
# Compression ratios (uncompressed over compressed) of scans are 1 to 5, of half empty ones 10.
USUAL_COMPRESSION_RATIO = 20
CHUNK_BYTES = 2**20
GZIP_MAGIC = b"\x1f\x8b"
# At this level ISA-L's files are as small as zlib's at nibabel's level.
GZIP_LEVEL = 1
# isal's annotation says that its error is no class.
_ISAL_ERROR = cast("type[Exception]", IsalError)


def open_image(path: Path) -> Nifti1Image:
    """Open an image file and check its header; voxels stay on disk.

    Parameters
    ----------
    path
        A file that ends in ``.nii``, ``.nii.gz``, ``.mgz`` or ``.mgh``.

    Raises
    ------
    NoInput
        The file does not exist, its content was not fetched, or it may not be read.
    InputOutputError
        The disk cannot be read.
    BadData
        The file is no image of one real-valued 3-D volume with a usable grid.
    """
    check_readable(path)
    # nibabel would read many other formats, for which there are no checks here.
    if not path.name.lower().endswith((".nii", ".nii.gz", *freesurfer.ENDINGS)):
        raise BadData(f"{path} is not a NIfTI image; convert it to .nii or .nii.gz")
    kind = "FreeSurfer" if freesurfer.is_freesurfer(path) else "NIfTI"
    _check_ending(path)
    try:
        if kind == "NIfTI":
            check_header(path)
        image = _load(path)
    # Parsers of unknown bytes raise many kinds of errors; whatever they raise, the file is damaged.
    except Exception as error:
        raise BadData(
            f"{path} is not a readable {kind} image ({os_reason(error)}); replace the file"
        ) from error
    if isinstance(image, MGHImage):
        image = freesurfer.as_nifti(image, path)
    if not isinstance(image, Nifti1Image):
        raise BadData(f"{path} is not a NIfTI image; convert it to .nii or .nii.gz")
    check_volume(image, path)
    zooms(image, path)
    return image


def _check_ending(path: Path) -> None:
    """Refuse a file whose ending says that it is compressed and whose content is not, or the reverse."""
    with path.open("rb") as file:
        start = file.read(nib.Nifti2Header.sizeof_hdr)
    is_nifti = any(kind.may_contain_header(start) for kind in (nib.Nifti1Header, nib.Nifti2Header))
    if start.startswith(GZIP_MAGIC) and not _is_gzipped(str(path)):
        ending = ".mgz" if freesurfer.is_freesurfer(path) else ".nii.gz"
        raise BadData(f"{path} is compressed by gzip; name it {ending}")
    if is_nifti and _is_gzipped(str(path)):
        raise BadData(f"{path} is not compressed; name it .nii, or compress it by gzip")


def _load(path: Path) -> FileBasedImage:
    """What nibabel makes of a file, also where rounding made its quaternion longer than 1."""
    try:
        return nib.load(path)
    except ValueError:
        with _tolerant_of_rounding():
            image = nib.load(path)
    if isinstance(image, Nifti1Image):
        names = ("quatern_b", "quatern_c", "quatern_d")
        length = math.sqrt(sum(float(image.header[name]) ** 2 for name in names))
        for name in names:
            image.header[name] = np.float32(image.header[name] / length)
    return image


@contextmanager
def _tolerant_of_rounding() -> Iterator[None]:
    """Let nibabel accept quaternions that are a little longer than 1."""
    headers = (nib.Nifti1Header, nib.Nifti2Header)
    strict = [header.quaternion_threshold for header in headers]
    for header in headers:
        header.quaternion_threshold = np.float64(QUATERNION_ERROR)
    try:
        yield
    finally:
        for header, threshold in zip(headers, strict, strict=True):
            header.quaternion_threshold = threshold


def forms_agree(image: Nifti1Image) -> bool:
    """Whether qform and sform, where a header has both, put the volume in the same place."""
    header = image.header
    if not (int(header["qform_code"]) and int(header["sform_code"])):
        return True
    ends = np.array([[0, n - 1] for n in image.shape[:3]])
    corners = np.array(list(itertools.product(*ends)))
    try:
        forms = (header.get_qform(), header.get_sform())
    except ValueError:
        # A qform that is none places the volume nowhere.
        return True
    places = [nib.affines.apply_affine(form, corners) for form in forms]
    return bool(np.abs(places[0] - places[1]).max() <= SAME_PLACE_MM)


def read_voxels(image: Nifti1Image) -> Voxels:
    """Read the voxels, scaled by the header's slope and intercept.

    Returns
    -------
    ndarray
        ``(x, y, z)`` float32; values that are not finite stay as they are (see `as_magnitude`).

    Raises
    ------
    BadData
        The image is not one 3-D volume of real values, does not fit in memory, is truncated or corrupt, or
        holds nothing that could be harmonized.
    """
    path = image.get_filename() or "the image"
    check_volume(image, path)
    try:
        if isinstance(image.dataobj, ArrayProxy):
            _check_length(image.dataobj, path)
        with np.errstate(all="ignore"):
            voxels = _stored_voxels(image, path)
    except MemoryError as error:
        raise BadData(f"{path}: {OUT_OF_MEMORY}") from error
    except (OSError, EOFError, zlib.error, _ISAL_ERROR, ValueError, OverflowError) as error:
        raise BadData(
            f"{path} is truncated or corrupt ({os_reason(error)}); fetch or convert it again"
        ) from error
    voxels = voxels.reshape(voxels.shape[:3])
    check_content(image, voxels, path)
    return voxels


def as_magnitude(voxels: Voxels) -> tuple[Voxels, int, int]:
    """Replace what a magnitude image cannot hold by background (0).

    Returns
    -------
    voxels, replaced, negative
        The voxels (the same array where nothing had to be replaced) and how many were not finite and
        how many negative.
    """
    finite = np.isfinite(voxels)
    replaced = voxels.size - int(np.count_nonzero(finite))
    if replaced:
        voxels = np.where(finite, voxels, np.float32(0))
    negative = int(np.count_nonzero(voxels < 0))
    if negative:
        voxels = np.maximum(voxels, np.float32(0))
    return voxels, replaced, negative


def zooms(image: Nifti1Image, path: Path | str | None = None) -> tuple[float, float, float]:
    """Voxel size along the three array axes, in millimetres whatever unit the header uses.

    Parameters
    ----------
    image
        An image with an affine.
    path
        The file that errors name; by default the one that the image was read from.

    Raises
    ------
    BadData
        The affine is singular or not finite, or the image would be larger than any scanner.
    """
    name = path or image.get_filename() or "the image"
    # get_xyzt_units would fail on codes that the standard does not define.
    unit = MILLIMETRES_PER_UNIT.get(int(image.header["xyzt_units"]) % 8, 1.0)
    axes = np.asarray(image.affine, dtype=float)[:3, :3]
    # Affines too large to be multiplied are refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.sqrt(np.sum(np.square(axes), axis=0)) * unit
        volume = abs(np.linalg.det(axes))
    extents = sizes * image.shape[:3]
    if not np.all(np.isfinite(image.affine)) or volume < 1e-12:
        raise BadData(
            f"{name} has no valid affine (it is singular or not finite); correct its qform and sform"
        )
    if np.any(extents > MAX_EXTENT_MM) or extents.max() < MIN_EXTENT_MM:
        size = " x ".join(f"{extent:.0f}" if extent >= 1 else f"{extent:.2g}" for extent in extents)
        raise BadData(f"{name} would measure {size} mm; correct the voxel size or its unit in the header")
    x, y, z = sizes
    return float(x), float(y), float(z)


def with_voxels(image: Nifti1Image, voxels: Voxels) -> Nifti1Image:
    """An image of the same class, grid and header as `image`, float32, holding `voxels` unscaled."""
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    # The window stored for the display of the input does not fit the output's scale.
    header["cal_min"] = header["cal_max"] = 0
    return type(image)(voxels.reshape(image.shape), image.affine, header)


def save_image(image: Nifti1Image, path: Path, source: Path | None = None) -> None:
    """Write an image in the format that the name says; the same image gives the same bytes.

    The file is one that `nibabel.save` could have written. Its zlib would take most of the time that a scan
    takes; ISA-L's result is as small.

    Parameters
    ----------
    source
        The file that the image was made from; FreeSurfer's scan parameters are taken over from it.
    """
    compress = _compressed if _is_gzipped(str(path)) else nullcontext
    with path.open("wb") as file, compress(file) as stream:
        if freesurfer.is_freesurfer(path):
            freesurfer.write(image, stream, source)
        else:
            image.to_file_map({"image": FileHolder(fileobj=stream)})


@contextmanager
def _compressed(file: IOBase) -> Iterator[IOBase]:
    with (
        igzip.IGzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as stream,
        BufferedWriter(stream, CHUNK_BYTES) as buffer,
    ):
        yield buffer


def _stored_voxels(image: Nifti1Image, path: str) -> Voxels:
    if not (isinstance(image.dataobj, ArrayProxy) and _is_gzipped(path)):
        return np.asarray(image.dataobj, dtype=np.float32)
    with igzip.open(path) as stream:
        voxels = np.asarray(_from_stream(image.dataobj, stream), dtype=np.float32)
        _read_to_end(stream, (MAX_LENGTH_RATIO - 1) * _expected_bytes(image.dataobj) + CHUNK_BYTES)
    return voxels


def _read_to_end(stream: IOBase, max_bytes: int) -> None:
    """Read on to the checksum at the end, since nibabel stops at the last voxel.

    Raises
    ------
    ValueError
        More than `max_bytes` bytes follow.
    """
    length = 0
    while chunk := stream.read(CHUNK_BYTES):
        length += len(chunk)
        if length > max_bytes:
            raise ValueError(f"more than {length} bytes follow its voxels")


def _from_stream(voxels: ArrayProxy, stream: IOBase) -> ArrayProxy:
    """The same voxels, to be read from a stream that starts where their file does."""
    return ArrayProxy(stream, (voxels.shape, voxels.dtype, voxels.offset, voxels.slope, voxels.inter))


def _check_length(voxels: ArrayProxy, path: str) -> None:
    """Refuse a file that is shorter than its header says, before its voxels take memory.

    Raises
    ------
    MemoryError
        The voxels, as they are stored and as float32, do not fit in this machine's memory.
    EOFError
        The file is too short.
    """
    if math.prod(voxels.shape) * (voxels.dtype.itemsize + np.dtype(np.float32).itemsize) > _physical_memory():
        raise MemoryError
    expected, size = _expected_bytes(voxels), os.path.getsize(path)
    # Most files need not be decompressed twice: the memory that they ask for is in proportion to their size.
    if _is_gzipped(path) and size * USUAL_COMPRESSION_RATIO < expected:
        size = _decompressed_length(path, expected)
    elif _is_gzipped(path):
        return
    if size < expected:
        raise EOFError(f"{size} bytes instead of {expected}")


def _expected_bytes(voxels: ArrayProxy) -> int:
    """The length in bytes, uncompressed, that a file has by its header."""
    return int(voxels.offset) + math.prod(voxels.shape) * voxels.dtype.itemsize


def _is_gzipped(path: str) -> bool:
    return path.lower().endswith((".gz", ".mgz"))


def _decompressed_length(path: str, enough: int) -> int:
    """The uncompressed length of a compressed file, which is not read much farther than `enough` bytes."""
    length = 0
    with igzip.open(path) as stream:
        while length < enough and (chunk := stream.read(CHUNK_BYTES)):
            length += len(chunk)
    return length


def _physical_memory() -> int:
    """Memory of this machine in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
