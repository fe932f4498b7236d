"""The edit of one scan, as an object that can be saved and applied again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.foreground import Box
from bids_harmonize.imaging.loaded_scan import LoadedScan
from bids_harmonize.imaging.nifti import with_voxels
from bids_harmonize.imaging.types import Voxels
from bids_harmonize.model.bilateral_grid import KNOT_STEP, KNOTS, Cells, slice_volume

# A rising curve from logarithms to logarithms, and a field from places to logarithms.
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Field = Callable[[NDArray[np.float64]], NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class Transform:
    """The whole edit of one scan: a grid of tone curves over the box of its foreground.

    Attributes
    ----------
    curves
        Output intensities at the knots, ``(KNOTS, X, Y, Z)`` float32, on the reference group's scale; cells
        are ordered as the axes of the image.
    shape
        Shape of the image, three axes.
    box
        The voxels that the cells divide; beyond it, the curves of the outermost cells hold.
    tissue
        Share of each cell that is brighter than air, ``(X, Y, Z)`` float32.
    scale
        Intensity of the image that the curves call 1.
    """

    curves: Tensor
    shape: tuple[int, int, int]
    box: Box
    tissue: Tensor
    scale: float

    def apply(self, image: Nifti1Image) -> Nifti1Image:
        """Apply the edit to the image that it was made for; the same voxels on the same device.

        Raises
        ------
        BadData
            The image has another shape, or cannot be read.
        """
        voxels = LoadedScan.of_image(image).voxels
        if voxels.shape != self.shape:
            raise BadData(f"the transform is for an image of {self.shape} voxels, not {voxels.shape}")
        return with_voxels(image, self.apply_to_voxels(voxels))

    def apply_to_voxels(self, voxels: Voxels, chunk_voxels: int | None = None) -> Voxels:
        """The same for bare voxels, not negative and all finite, about `chunk_voxels` of them at a time."""
        _, x, y, z = self.curves.shape
        cells = Cells(self.shape, (x, y, z), self.box)
        with torch.no_grad():
            result = slice_volume(self.curves, cells, torch.from_numpy(voxels), chunk_voxels, unit=self.scale)
        return np.asarray(result.numpy())

    def sharing(self, field: Field, shared: Curve, share: float) -> Self:
        """The edit with a curve that scans of one protocol share, in place of the curves of its cells.

        Curves that differ from place to place, as those of an edit by itself, even out what is special about
        a person; one curve on the scan without its receive field does not.

        Parameters
        ----------
        field
            The logarithm of the receive field at places ``(n, 3)``, in voxels of the image.
        shared
            From logarithms of the scan's intensities to those of the outputs that it is to get, rising.
        share
            How much of that it gets, from 0 to 1; the rest is as it was, in logarithms.
        """
        _, *counts = self.curves.shape
        along = [
            start + (np.arange(n) + 0.5) * (length / n) - 0.5
            for start, length, n in zip(self.box.start, self.box.shape, counts, strict=True)
        ]
        places = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1)
        logs = field(places.reshape(-1, 3)).reshape(counts)
        inputs = np.log(np.arange(1, KNOTS) * KNOT_STEP * self.scale)[:, None, None, None]
        own = self.curves[1:].cpu().double().log().numpy()
        curves = np.exp(share * shared(inputs - logs) + (1 - share) * own)
        curves = np.concatenate([np.zeros((1, *counts)), curves])
        return replace(self, curves=torch.from_numpy(curves).float().to(self.curves.device))

    def save(self, path: Path) -> None:
        """Write the transform as safetensors."""
        # There is one entry because safetensors writes several in random order.
        content = {
            "shape": self.shape,
            "box": [self.box.start, self.box.stop],
            "scale": self.scale.hex(),
        }
        metadata = {"transform": json.dumps(content)}
        tensors = {name: getattr(self, name).cpu().contiguous() for name in ("curves", "tissue")}
        # `save_file` of safetensors would make a file that only its owner can read.
        path.write_bytes(save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """Read a transform that `save` wrote.

        Raises
        ------
        BadData
            The file is no such transform.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads(file.metadata()["transform"])
                curves = file.get_tensor("curves").to(device)
                # Version 0.1.0 did not say which cells hold tissue.
                known = "tissue" in file.keys()  # noqa: SIM118
                tissue = file.get_tensor("tissue") if known else torch.ones(curves.shape[1:])
            x, y, z = metadata["shape"]
            # The grids of version 0.1.0 divide the whole image.
            start, stop = metadata.get("box", [(0, 0, 0), (x, y, z)])
            transform = cls(
                curves=curves,
                shape=(x, y, z),
                box=Box(tuple(start), tuple(stop)),
                tissue=tissue,
                scale=float.fromhex(metadata["scale"]),
            )
            transform.check()
            return transform
        except (
            SafetensorError,
            LookupError,
            TypeError,
            ArithmeticError,
            ValueError,
            RecursionError,
            OSError,
        ) as error:
            raise BadData(f"{path} is no saved transform; make it with --save-transform") from error

    def check(self) -> None:
        """Raise a `ValueError` if this cannot be the edit of an image."""
        curves, shape = self.curves, self.shape
        if curves.dtype != torch.float32 or curves.ndim != 4 or len(curves) != KNOTS:
            raise ValueError(f"curves of {curves.dtype}, {tuple(curves.shape)}")
        if not all(isinstance(n, int) for n in (*shape, *self.box.start, *self.box.stop)) or min(shape) < 1:
            raise ValueError(f"{shape} voxels, {self.box}")
        if not all(1 <= m <= n for n, m in zip(self.box.shape, curves.shape[1:], strict=True)):
            raise ValueError(f"{tuple(curves.shape[1:])} cells for {self.box}")
        if self.tissue.shape != curves.shape[1:] or self.tissue.dtype != torch.float32:
            raise ValueError(f"tissue of {self.tissue.dtype}, {tuple(self.tissue.shape)}")
        if not (0 < self.scale < math.inf and torch.isfinite(curves).all()):
            raise ValueError("curves or scale are not finite")
