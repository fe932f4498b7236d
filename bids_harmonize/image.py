"""NIfTI in and out, with the grid and the header kept, and a robust intensity scale.

Every check here fails with one sentence that names the file and says what is wrong and what to do.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from io import BufferedWriter, IOBase
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from bids_harmonize.errors import BadData, InputOutputError, NoInput

# By the code of the header: metre, millimetre, micron; anything else is taken for millimetres.
MILLIMETRES_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
# No scanner's bore is wider; a larger extent means that the header's voxel size is wrong.
LARGEST_EXTENT_MM = 1500.0
# Ringing, and noise around zero, leave a little signal below zero; z-scores and Hounsfield units leave much.
LARGEST_NEGATIVE_SHARE = 0.05
# Of bytes before the voxels. Extensions take kilobytes, seldom megabytes, and are read as a whole.
LARGEST_HEADER = 16 * 2**20
MOST_EXTENSIONS = 1000
# Of what a compressed file holds, beside what its header says; packed zeros grow a thousandfold.
MOST_OF_STREAM = 2
# Uncompressed over compressed; scans have 1 to 5, half empty ones 10.
USUAL_PACKING = 20
CHUNK = 2**20
# Percentiles of more voxels than this do not change in any digit that matters.
SCALE_SAMPLE = 1_000_000
# What a file of git-annex begins with in place of its content, where it is no link (adjusted or unlocked).
ANNEX_POINTER = b"/annex/objects/"

# Files as small as zlib's at nibabel's level.
GZIP_LEVEL = 1
WRITTEN_AT_ONCE = 1 << 20
# Its annotation says that it is no class.
_ISAL_ERROR = cast("type[Exception]", IsalError)

Voxels = NDArray[np.float32]


def open_image(path: Path) -> Nifti1Image:
    """Open a NIfTI file and check its header; voxels stay on disk.

    Raises
    ------
    NoInput
        The file is not there, is a link to content not yet fetched, or may not be read.
    BadData
        The file is no NIfTI image of one real-valued 3-D volume with a usable grid.
    """
    _check_readable(path)
    # nibabel would read many other formats, which nothing here looks after.
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise BadData(f"{path} is not a NIfTI image; convert it to .nii or .nii.gz")
    try:
        _check_header(path)
        image = nib.load(path)
    # Parsers of unknown bytes: whatever they raise, the file is damaged.
    except Exception as error:
        raise BadData(f"{path} is not a readable NIfTI image ({_reason(error)}); replace the file") from error
    if not isinstance(image, Nifti1Image):
        raise BadData(f"{path} is not a NIfTI image; convert it to .nii or .nii.gz")
    _check_volume(image, path)
    zooms(image, path)
    return image


def read_voxels(image: Nifti1Image) -> Voxels:
    """The scaled voxels, float32, in three dimensions; values that are not finite stay as they are.

    Raises
    ------
    BadData
        The image is not one 3-D volume of real values, its data are truncated or corrupt, or it holds nothing
        that could be harmonized.
    """
    path = image.get_filename() or "the image"
    _check_volume(image, path)
    try:
        if isinstance(image.dataobj, ArrayProxy):
            _check_length(image.dataobj, path)
        with np.errstate(all="ignore"):
            voxels = _stored_voxels(image, path)
    except MemoryError as error:
        raise BadData(f"{path} needs more memory than there is; give the process more") from error
    except (OSError, EOFError, zlib.error, _ISAL_ERROR, ValueError, OverflowError) as error:
        raise BadData(
            f"{path} is truncated or corrupt ({_reason(error)}); fetch or convert it again"
        ) from error
    voxels = voxels.reshape(voxels.shape[:3])
    _check_content(image, voxels, path)
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


def intensity_scale(voxels: Voxels) -> float:
    """A robust bright value of the tissue: the 99th percentile of the foreground.

    Foreground is what exceeds a tenth of the 99.5th percentile of the positive voxels, so that neither
    air around the head nor the size of the field of view decides.
    """
    stride = max(1, round((voxels.size / SCALE_SAMPLE) ** (1 / 3)))
    sample = voxels[tuple(slice(None, None, min(stride, n)) for n in voxels.shape)]
    positive = sample[sample > 0]
    if positive.size == 0:
        positive = voxels[voxels > 0]
    foreground = positive[positive > 0.1 * np.percentile(positive, 99.5)]
    return float(np.percentile(foreground, 99))


def zooms(image: Nifti1Image, path: Path | str | None = None) -> tuple[float, float, float]:
    """Voxel size along the three array axes, in millimetres whatever unit the header uses."""
    name = path or image.get_filename() or "the image"
    # Not get_xyzt_units, which fails on codes that the standard does not define.
    unit = MILLIMETRES_PER_UNIT.get(int(image.header["xyzt_units"]) % 8, 1.0)
    axes = np.asarray(image.affine, dtype=float)[:3, :3]
    # What is too large to be multiplied is refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.sqrt(np.sum(np.square(axes), axis=0)) * unit
        volume = abs(np.linalg.det(axes))
    extents = sizes * image.shape[:3]
    if not np.all(np.isfinite(image.affine)) or volume < 1e-12:
        raise BadData(
            f"{name} has no valid affine (it is singular or not finite); correct its qform and sform"
        )
    if np.any(extents > LARGEST_EXTENT_MM):
        size = " x ".join(f"{extent:.0f}" for extent in extents)
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


def save_image(image: Nifti1Image, path: Path) -> None:
    """Write an image; the same image gives the same bytes.

    Like `nibabel.save`, whose zlib takes most of the time that a scan takes; ISA-L's is as small.
    """
    if path.suffix != ".gz":
        nib.save(image, path)
        return
    with (
        path.open("wb") as file,
        igzip.IGzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as stream,
        BufferedWriter(stream, WRITTEN_AT_ONCE) as buffer,
    ):
        image.to_file_map({"image": FileHolder(fileobj=buffer)})


def _check_readable(path: Path) -> None:
    # Not the methods of the path, which raise where a name is too long to be there.
    if os.path.islink(path) and not os.path.exists(path):
        raise NoInput(f"{path} is a link to content that is not here; fetch it with: datalad get {path}")
    if not os.path.exists(path):
        raise NoInput(f"{path} does not exist")
    if not os.path.isfile(path):
        raise BadData(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            start = file.read(len(ANNEX_POINTER))
    except PermissionError as error:
        raise NoInput(f"{path} may not be read; change its permissions") from error
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read ({os.strerror(error.errno or 5)})") from error
    if not start:
        raise BadData(f"{path} is empty (0 bytes); fetch or convert it again")
    if start == ANNEX_POINTER:
        raise NoInput(f"{path} stands for content that is not here; fetch it with: datalad get {path}")


def _stored_voxels(image: Nifti1Image, path: str) -> Voxels:
    if not (isinstance(image.dataobj, ArrayProxy) and _is_packed(path)):
        return np.asarray(image.dataobj, dtype=np.float32)
    with igzip.open(path) as stream:
        voxels = np.asarray(_over(image, stream).dataobj, dtype=np.float32)
        _read_to_end(stream, (MOST_OF_STREAM - 1) * _said(image.dataobj) + CHUNK)
    return voxels


def _read_to_end(stream: IOBase, most: int) -> None:
    """To the checksum, which nibabel, that stops at the last voxel, does not come to."""
    length = 0
    while chunk := stream.read(CHUNK):
        length += len(chunk)
        if length > most:
            raise ValueError(f"more than {length} bytes follow its voxels")


def _over(image: Nifti1Image, stream: IOBase) -> Nifti1Image:
    """The same image, read from a stream that starts where its file does."""
    return type(image).from_file_map({"image": FileHolder(fileobj=stream)})


def _check_header(path: Path) -> None:
    """Refuse a damaged header before nibabel, which believes what extensions say of their size, reads on."""
    with nib.openers.ImageOpener(str(path)) as file:
        start = file.read(nib.Nifti2Header.sizeof_hdr)
        kind = nib.Nifti2Header if nib.Nifti2Header.may_contain_header(start) else nib.Nifti1Header
        header = kind(start[: kind.sizeof_hdr], check=False)
        offset = float(header["vox_offset"])
        if not kind.single_vox_offset <= offset <= LARGEST_HEADER:
            raise ValueError(f"its voxels would begin at byte {offset:g}")
        start += file.read(max(int(offset) - len(start), 0))
    if start[kind.sizeof_hdr : kind.sizeof_hdr + 1] != b"\0":
        _check_extensions(start[kind.single_vox_offset : int(offset)], header.endianness)


def _check_extensions(held: bytes, order: str) -> None:
    place = 0
    for _ in range(MOST_EXTENSIONS):
        # What is left is padding.
        if len(held) - place < 16:
            return
        (size,) = struct.unpack_from(f"{order}i", held, place)
        if not 8 <= size <= len(held) - place:
            raise ValueError(f"an extension of its header would have {size} bytes")
        place += size
    raise ValueError(f"its header has more than {MOST_EXTENSIONS} extensions")


def _check_length(voxels: ArrayProxy, path: str) -> None:
    """Refuse a file that is shorter than its header says, before its voxels take memory."""
    if math.prod(voxels.shape) * (voxels.dtype.itemsize + np.dtype(np.float32).itemsize) > _memory():
        raise MemoryError
    said, size = _said(voxels), os.path.getsize(path)
    # Most files need not be read twice: what they can take is in proportion to what they are.
    if _is_packed(path) and size * USUAL_PACKING < said:
        size = _length(path, said)
    elif _is_packed(path):
        return
    if size < said:
        raise EOFError(f"{size} bytes instead of {said}")


def _said(voxels: ArrayProxy) -> int:
    """Length of a file by its header, in bytes, uncompressed."""
    return int(voxels.offset) + math.prod(voxels.shape) * voxels.dtype.itemsize


def _is_packed(path: str) -> bool:
    return path.lower().endswith(".gz")


def _length(path: str, enough: int) -> int:
    """Of a compressed file, uncompressed; it is not read much farther than to so many bytes."""
    length = 0
    with igzip.open(path) as stream:
        while length < enough and (chunk := stream.read(CHUNK)):
            length += len(chunk)
    return length


def _memory() -> int:
    """Of this machine, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _check_volume(image: Nifti1Image, path: Path | str) -> None:
    shape = image.shape
    if len(shape) < 3 or any(n < 1 for n in shape) or any(n != 1 for n in shape[3:]):
        size = " x ".join(map(str, shape))
        raise BadData(f"{path} is not one 3-D volume but {size}; give a single volume")
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise BadData(f"{path} holds {dtype} voxels (colour or complex); give a magnitude image")


def _check_content(image: Nifti1Image, voxels: Voxels, path: Path | str) -> None:
    low, high = _finite_range(image, voxels, path)
    if low == high:
        what = "all zeros (as 32-bit floats)" if high == 0 else f"constant ({high:g} everywhere)"
        raise BadData(f"{path} is {what}; there is nothing to harmonize, replace or leave out the file")
    if low >= 0:
        return
    finite = np.where(np.isfinite(voxels), voxels, np.float32(0))
    negative = -float(np.sum(finite, where=finite < 0, dtype=np.float64))
    total = float(np.sum(np.abs(finite), dtype=np.float64))
    if negative > LARGEST_NEGATIVE_SHARE * total:
        raise BadData(
            f"{path} is no magnitude image: {100 * negative / total:.0f} % of its signal is negative "
            "(z-scores, Hounsfield units or phase?); give the scan as it was reconstructed"
        )


def _finite_range(image: Nifti1Image, voxels: Voxels, path: Path | str) -> tuple[float, float]:
    low, high = float(voxels.min()), float(voxels.max())
    if np.isfinite(low) and np.isfinite(high):
        return low, high
    beyond = np.isinf(voxels)
    if np.any(np.isfinite(np.asarray(image.dataobj, dtype=np.float64).reshape(voxels.shape)[beyond])):
        raise BadData(f"{path} holds values that 32-bit floats cannot; divide it by a constant")
    finite = voxels[np.isfinite(voxels)]
    if finite.size == 0:
        raise BadData(f"{path} holds no finite value; replace or leave out the file")
    return float(finite.min()), float(finite.max())


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
