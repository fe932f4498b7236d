"""FreeSurfer's images (.mgz, .mgh), in memory as NIfTI images on the same grid."""

from __future__ import annotations

from io import IOBase
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder
from nibabel.freesurfer.mghformat import MGHHeader, MGHImage
from nibabel.nifti1 import Nifti1Image

# The byte at which a header says whether its grid is known, as a number of two bytes.
GRID_IS_KNOWN = 28
ENDINGS = (".mgz", ".mgh")


def is_freesurfer(path: Path | str) -> bool:
    """Whether a file's name says that it is such an image."""
    return str(path).lower().endswith(ENDINGS)


def as_nifti(image: MGHImage, path: Path) -> Nifti1Image:
    """The same volume and grid as a NIfTI image, its voxels where they are.

    Where the header says that its grid is unknown, the codes of the NIfTI header are 0, which says the same.
    """
    nifti = Nifti1Image(image.dataobj, image.affine, file_map={"image": image.file_map["image"]})
    nifti.header.set_data_dtype(image.get_data_dtype())
    with nib.openers.ImageOpener(str(path)) as file:
        start = file.read(GRID_IS_KNOWN + 2)
    # nibabel fills the header in as if it had been known.
    if not any(start[GRID_IS_KNOWN:]):
        nifti.header["sform_code"] = 0
    return nifti


def write(image: Nifti1Image, stream: IOBase, source: Path | None) -> None:
    """Write the first three axes of an image, float32, uncompressed.

    Parameters
    ----------
    source
        The file that the image was made from: if it is FreeSurfer's, the image keeps its scan parameters.
    """
    voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    header = None
    if source is not None and is_freesurfer(source):
        with nib.openers.ImageOpener(str(source)) as file:
            header = MGHHeader.from_fileobj(file)
        header.set_data_dtype(np.float32)
    MGHImage(voxels, image.affine, header).to_file_map({"image": FileHolder(fileobj=stream)})
