"""Files under the name of a scan that cannot be harmonized."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tests.helpers.toy_datasets import head, image_of


def _not_nifti(path: Path) -> None:
    path.write_bytes(b"This is no image, although its name says so.\n" * 20)


def _packed_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"This is no image either.\n" * 40))


def _not_packed(path: Path) -> None:
    path.write_bytes(image_of(head()).to_bytes())


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _whole(path: Path) -> None:
    nib.save(image_of(head()), path)


def _truncated_header(path: Path) -> None:
    _whole(path)
    path.write_bytes(path.read_bytes()[:60])


def _truncated(path: Path) -> None:
    _whole(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _truncated_before_packing(path: Path) -> None:
    path.write_bytes(gzip.compress(image_of(head()).to_bytes()[:5000]))


def _damaged(path: Path) -> None:
    _whole(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    content[-6] ^= 0xFF
    path.write_bytes(content)


def _flat(path: Path) -> None:
    nib.save(nib.Nifti1Image(head()[:, :, 10], np.diag([9, 9, 9, 1])), path)


def _with_voxels(voxels: NDArray[Any]) -> Callable[[Path], None]:
    return lambda path: nib.save(image_of(voxels), path)


def _scan_with(value: float, where: object = Ellipsis) -> NDArray[np.float32]:
    voxels = head().astype(np.float32)
    voxels[where] = value
    return voxels


def with_header(**fields: object) -> Callable[[Path], None]:
    """Write a scan whose header's bytes are changed, as nibabel itself would refuse to."""

    def write(path: Path) -> None:
        image = image_of(head())
        content = bytearray(image.to_bytes())
        header = np.frombuffer(bytes(content[:348]), dtype=image.header.template_dtype).copy()
        for name, value in fields.items():
            header[name] = value
        content[:348] = header.tobytes()
        path.write_bytes(gzip.compress(bytes(content)))

    return write


COLOUR = np.zeros((6, 6, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
# For each kind, the function that writes the file, and words of the message about it.
BAD_IMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "not NIfTI": (_not_nifti, "is not a readable NIfTI image"),
    "packed text": (_packed_text, "is not a readable NIfTI image"),
    "not packed": (_not_packed, "is not compressed; name it .nii, or compress it by gzip"),
    "empty": (_empty, "is empty"),
    "truncated header": (_truncated_header, "is not a readable NIfTI image"),
    "truncated": (_truncated, "is truncated or corrupt"),
    "truncated before packing": (_truncated_before_packing, "is truncated or corrupt"),
    "damaged": (_damaged, "is truncated or corrupt"),
    "4-D": (_with_voxels(np.stack([head(), head(1)], axis=3)), "is not one 3-D volume but 20 x 24 x 20 x 2"),
    "2-D": (_flat, "is not one 3-D volume but 20 x 24"),
    "colour": (_with_voxels(COLOUR), "colour"),
    "complex": (_with_voxels(head().astype(np.complex64)), "complex"),
    "all zeros": (_with_voxels(np.zeros((20, 24, 20), np.int16)), "is all zeros"),
    "constant": (_with_voxels(np.full((20, 24, 20), 7, np.int16)), "is constant (7 everywhere)"),
    "constant negative": (_with_voxels(np.full((20, 24, 20), -7, np.int16)), "is constant (-7 everywhere)"),
    "constant but NaN": (_with_voxels(np.where(head() > 300, np.nan, 3.0).astype(np.float32)), "is constant"),
    "all NaN": (_with_voxels(_scan_with(np.nan)), "no finite value"),
    "all infinite": (_with_voxels(_scan_with(np.inf)), "no finite value"),
    "negative": (_with_voxels(-head()), "is no magnitude image: 100 % of its signal is negative"),
    "z-scores": (_with_voxels((head() - 300).astype(np.float32) / 200), "is no magnitude image"),
    "singular affine": (with_header(srow_x=0), "has no valid affine"),
    "NaN affine": (with_header(srow_y=np.nan), "has no valid affine"),
    "infinite affine": (with_header(srow_z=np.inf), "has no valid affine"),
    "NaN affine from qform": (with_header(sform_code=0, qoffset_x=np.nan), "has no valid affine"),
    "no rotation in qform": (with_header(sform_code=0, quatern_b=2), ""),
    "huge voxels": (with_header(sform_code=0, pixdim=[1, 900, 900, 900, 1, 0, 0, 0]), "would measure"),
}
