"""Space of the phantom: voxel grids, rotations, and smooth random fields in millimetres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Voxel grid of a scan.

    Parameters
    ----------
    zooms : tuple of float
        Voxel size in mm along the three voxel axes.
    axes : str
        Directions of the voxel axes, for example ``"LAS"``.
    low, high : tuple of float
        Corners of the field of view, mm in RAS+.
    oblique : tuple of float
        Rotation of the grid about the x, y and z axes, degrees.
    """

    zooms: Vector
    axes: str = "RAS"
    low: Vector = (-84.0, -102.0, -124.0)
    high: Vector = (84.0, 112.0, 86.0)
    oblique: Vector = (0.0, 0.0, 0.0)

    @property
    def world_axes(self) -> tuple[int, int, int]:
        """The RAS+ axis (0, 1, 2) nearest to each voxel axis."""
        first, second, third = ("LPI".find(c) if c in "LPI" else "RAS".find(c) for c in self.axes)
        return first, second, third

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each voxel axis."""
        extent = np.subtract(self.high, self.low)[list(self.world_axes)]
        first, second, third = np.round(extent / self.zooms).astype(int).tolist()
        return first, second, third

    @property
    def affine(self) -> NDArray[np.float64]:
        """Matrix, shape (4, 4), from voxel indices to mm."""
        affine = np.eye(4)
        affine[:3, :3] = 0
        for column, (axis, code) in enumerate(zip(self.world_axes, self.axes, strict=True)):
            affine[axis, column] = self.zooms[column] * (1 if code in "RAS" else -1)
        affine[:3, :3] = rotation_matrix(self.oblique) @ affine[:3, :3]
        centre = (np.add(self.low, self.high)) / 2
        affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine


def resample(volume: NDArray[Any], affine: NDArray[np.float64], grid: Grid, *, order: int) -> NDArray[Any]:
    matrix = np.linalg.inv(affine) @ grid.affine
    resampled: NDArray[Any] = ndimage.affine_transform(
        volume, matrix[:3, :3], offset=matrix[:3, 3], output_shape=grid.shape, order=order, prefilter=False
    )
    return resampled


def rotation_matrix(degrees: Vector) -> NDArray[np.float64]:
    """Rotation matrix: about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    return matrix


def waves_on_grid(
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    wavelength: float,
    count: int,
) -> Array:
    """The field of `_waves` at the voxels of a regular grid."""
    vectors, phases = random_waves(rng, wavelength, count)
    matrix = affine.astype(np.float32)
    per_voxel, start = vectors @ matrix[:3, :3], vectors @ matrix[:3, 3] + phases
    i, j, k = (np.arange(n, dtype=np.float32) for n in shape)
    plane = start[:, None, None] + per_voxel[:, 0, None, None] * i[:, None] + per_voxel[:, 1, None, None] * j
    row = per_voxel[:, 2, None] * k
    # cos(plane + row) as a product of matrices costs a hundredth of a cosine per voxel and wave.
    total = np.tensordot(np.cos(plane), np.cos(row), (0, 0)) - np.tensordot(
        np.sin(plane), np.sin(row), (0, 0)
    )
    result: Array = total * np.float32(math.sqrt(2 / count))
    return result


def random_waves(rng: np.random.Generator, wavelength: float, count: int) -> tuple[Array, Array]:
    """Wave vectors, shape (count, 3), of one wavelength in random directions, and their phases."""
    vectors = rng.standard_normal((count, 3))
    vectors *= 2 * np.pi / wavelength / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32)
