"""Checks that refuse damaged, foreign and hostile NIfTI files before they take memory."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image

from bids_harmonize.errors import BadData, InputOutputError, NoInput
from bids_harmonize.files.fetched import require_fetched
from bids_harmonize.imaging.types import Voxels

# Ringing, and noise around zero, leave a little signal below zero; z-scores and Hounsfield units leave much.
MAX_NEGATIVE_SHARE = 0.05
# Integers that wrapped around fill both ends of what their type holds; this share of the type is an end.
END_OF_RANGE = 0.1
# The largest values of 8, 10, 12, 14, 15 and 16 bits, at which conversions cut bright tissue off.
LARGEST_OF_BITS = (255, 1023, 4095, 16383, 32767, 65535)
# Windows of viewers and of other programs cut a few percent of the tissue off; more than this is damage.
MAX_CLIPPED_SHARE = 0.1
# Voxels must begin before this byte: extensions take kilobytes, seldom megabytes, and are read as a whole.
MAX_HEADER_BYTES = 16 * 2**20
MAX_EXTENSIONS = 1000


def check_readable(path: Path) -> None:
    require_fetched(path)
    # The functions of `os.path` answer False where the methods of a path raise: on names that are too long.
    if not os.path.exists(path):
        raise NoInput(f"{path} does not exist")
    if not os.path.isfile(path):
        raise BadData(f"{path} is not a file; give a .nii or .nii.gz file")
    try:
        with path.open("rb") as file:
            start = file.read(1)
    except PermissionError as error:
        raise NoInput(f"{path} may not be read; change its permissions") from error
    except OSError as error:
        raise InputOutputError(f"{path} cannot be read ({os.strerror(error.errno or 5)})") from error
    if not start:
        raise BadData(f"{path} is empty (0 bytes); fetch or convert it again")


def check_header(path: Path) -> None:
    """Refuse a damaged header before nibabel reads on, since it believes the sizes that extensions claim.

    Raises
    ------
    ValueError
        The voxels would begin at an impossible place or have no size, or an extension has an impossible one.
    """
    with nib.openers.ImageOpener(str(path)) as file:
        start = file.read(nib.Nifti2Header.sizeof_hdr)
        kind = nib.Nifti2Header if nib.Nifti2Header.may_contain_header(start) else nib.Nifti1Header
        header = kind(start[: kind.sizeof_hdr], check=False)
        offset = float(header["vox_offset"])
        if not kind.single_vox_offset <= offset <= MAX_HEADER_BYTES:
            raise ValueError(f"its voxels would begin at byte {offset:g}")
        # A valid sform says how large voxels are, whatever else the header holds.
        if not int(header["sform_code"]) and not np.all(header["pixdim"][1:4]):
            raise ValueError("its voxels would be 0 mm wide by pixdim")
        start += file.read(max(int(offset) - len(start), 0))
    if start[kind.sizeof_hdr : kind.sizeof_hdr + 1] != b"\0":
        _check_extensions(start[kind.single_vox_offset : int(offset)], header.endianness)


def _check_extensions(content: bytes, byte_order: str) -> None:
    offset = 0
    for _ in range(MAX_EXTENSIONS):
        # Fewer bytes than this are padding.
        if len(content) - offset < 16:
            return
        (size,) = struct.unpack_from(f"{byte_order}i", content, offset)
        if not 8 <= size <= len(content) - offset:
            raise ValueError(f"an extension of its header would have {size} bytes")
        offset += size
    raise ValueError(f"its header has more than {MAX_EXTENSIONS} extensions")


def check_volume(image: Nifti1Image, path: Path | str) -> None:
    """Refuse an image that is not one 3-D volume of real values.

    Raises
    ------
    BadData
        The message names `path` and says what the image is.
    """
    shape = image.shape
    if len(shape) < 3 or any(n < 1 for n in shape) or any(n != 1 for n in shape[3:]):
        size = " x ".join(map(str, shape))
        raise BadData(f"{path} is not one 3-D volume but {size}; give a single volume")
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise BadData(f"{path} holds {dtype} voxels (colour or complex); give a magnitude image")


def check_content(image: Nifti1Image, voxels: Voxels, path: Path | str) -> None:
    """Refuse an image without contrast or finite values, with wrapped or clipped ones, or much below zero.

    Parameters
    ----------
    image
        The image as it is stored, whose values may be more than float32 holds.
    voxels
        The same as float32, ``(x, y, z)``.
    path
        The file that messages name.

    Raises
    ------
    BadData
        The image holds nothing that could be harmonized.
    """
    low, high = _finite_range(image, voxels, path)
    if low == high:
        content = "all zeros (as 32-bit floats)" if high == 0 else f"constant ({high:g} everywhere)"
        raise BadData(f"{path} is {content}, so there is nothing to harmonize; replace or leave out the file")
    if np.issubdtype(image.get_data_dtype(), np.integer):
        _check_not_wrapped(image, voxels, path)
        _check_not_clipped(image, voxels, path)
    if low >= 0:
        return
    finite = np.where(np.isfinite(voxels), voxels, np.float32(0))
    negative = -float(np.sum(finite, where=finite < 0, dtype=np.float64))
    total = float(np.sum(np.abs(finite), dtype=np.float64))
    if negative > MAX_NEGATIVE_SHARE * total:
        raise BadData(
            f"{path} is no magnitude image: {100 * negative / total:.0f} % of its signal is negative "
            "(z-scores, Hounsfield units or phase?); give the scan as it was reconstructed"
        )


def _check_not_wrapped(image: Nifti1Image, voxels: Voxels, path: Path | str) -> None:
    """Refuse unsigned integers that were stored as signed ones: their bright half has become negative."""
    limits = np.iinfo(image.get_data_dtype())
    slope, intercept = _scaling(image)
    end = END_OF_RANGE * limits.max
    low, high = (slope * limit for limit in (limits.min + end, limits.max - end))
    # With an intercept or a negative slope the sign of a value is not that of the integer stored for it.
    if (
        limits.min == 0
        or intercept
        or slope < 0
        or not (float(voxels.min()) < low and float(voxels.max()) > high)
    ):
        return
    # A single value below, such as a marker of the background, is no continuation of the bright end.
    below = voxels[voxels < low]
    if np.any(below != below[0]):
        raise BadData(
            f"{path} holds values that wrapped around: {np.count_nonzero(voxels < 0)} of its brightest "
            f"voxels are negative; convert it again with unsigned integers (u{image.get_data_dtype().name}) "
            "or floats"
        )


def _check_not_clipped(image: Nifti1Image, voxels: Voxels, path: Path | str) -> None:
    """Refuse a scan much of whose tissue has the largest value that a number of bits holds."""
    slope, intercept = _scaling(image)
    highest = float(voxels.max())
    stored = round((highest - intercept) / slope)
    if stored not in LARGEST_OF_BITS:
        return
    tissue = int(np.count_nonzero(voxels > 0.1 * highest))
    share = int(np.count_nonzero(voxels == np.float32(highest))) / max(tissue, 1)
    if share > MAX_CLIPPED_SHARE:
        raise BadData(
            f"{path} is clipped: {100 * share:.0f} % of its tissue has the largest value, {stored}; "
            "convert it again with a wider range of values"
        )


def _scaling(image: Nifti1Image) -> tuple[float, float]:
    """Slope and intercept by which stored integers become values."""
    slope, intercept = (getattr(image.dataobj, name, None) for name in ("slope", "inter"))
    return float(slope or 1.0), float(intercept or 0.0)


def _finite_range(image: Nifti1Image, voxels: Voxels, path: Path | str) -> tuple[float, float]:
    """The least and the largest finite value; refuse images without one, or with one beyond float32."""
    low, high = float(voxels.min()), float(voxels.max())
    if np.isfinite(low) and np.isfinite(high):
        return low, high
    # Signalling NaNs and floats wider than 64 bits would warn.
    with np.errstate(all="ignore"):
        wide = np.asarray(image.dataobj, dtype=np.float64).reshape(voxels.shape)
    if np.any(np.isfinite(wide[np.isinf(voxels)])):
        raise BadData(f"{path} holds values that 32-bit floats cannot; divide it by a constant")
    finite = voxels[np.isfinite(voxels)]
    if finite.size == 0:
        raise BadData(f"{path} holds no finite value; replace or leave out the file")
    return float(finite.min()), float(finite.max())


def os_reason(error: BaseException) -> str:
    """The message of an error on one line of at most 120 characters, or else the error's name."""
    return " ".join(str(error).split())[:120] or type(error).__name__
