"""The anatomy of a digital head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.phantom.shapes import (
    CALLOSUM,
    CEREBELLUM,
    CEREBRUM,
    CRANIUM,
    DEEP_PARTS,
    FACE,
    FACE_PARTS,
    NECK,
    NOSE,
    POSTERIOR_FOSSA,
    SCALP,
    SPINE,
    TEMPORAL_FOSSA,
    TEMPORAL_LOBE,
    VENTRICLES,
    Blob,
    both_sides,
    intersection,
    union,
)
from bids_harmonize.phantom.space import (
    Array,
    Grid,
    Vector,
    random_waves,
    resample,
    rotation_matrix,
    waves_on_grid,
)

#: Name of each label: `PHANTOM_LABELS[k]` is the tissue of the voxels that hold k.
PHANTOM_LABELS = (
    "air",
    "white matter",
    "grey matter",
    "deep grey matter",
    "csf",
    "fat",
    "muscle",
    "bone",
    "marrow",
)

_LOW_CORNER: Vector = (-88.0, -106.0, -132.0)
_HIGH_CORNER: Vector = (88.0, 116.0, 90.0)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head of a participant: label map, texture and place in the scanner.

    Attributes
    ----------
    labels : ndarray of uint8, shape (i, j, k)
        Index into `PHANTOM_LABELS`.
    texture : ndarray of float32, shape (i, j, k)
        Factor near 1 by which the signal varies within a tissue.
    affine : ndarray, shape (4, 4)
        From label-map indices to mm in the scanner.
    """

    labels: NDArray[np.uint8]
    texture: Array
    affine: NDArray[np.float64]

    def labels_on(self, grid: Grid) -> NDArray[np.uint8]:
        """Label of the tissue at the centre of each voxel of a scan."""
        resampled: NDArray[np.uint8] = resample(self.labels, self.affine, grid, order=0)
        return resampled


def head_labels(seed: int, person: int = 0, *, spacing: float = 1.75) -> Head:
    """Draw the head of a participant.

    Parameters
    ----------
    seed, person : int
        The dataset's seed and the participant's number in it; together they decide the anatomy.
    spacing : float
        Voxel size of the label map in mm.

    Returns
    -------
    Head
        The same for the same arguments.
    """
    rng = np.random.default_rng((seed, person, 1))
    canvas = _Canvas.blank(spacing, rng)
    thickness = rng.uniform(5.6, 7.0) + 0.8 * canvas.field(rng, 70)
    # Slab by slab the fields fit into the processor's cache, which halves the time.
    for first in range(0, len(thickness), 8):
        slab = canvas.slab(first, first + 8)
        surface = _draw_outer_layers(slab)
        _draw_skull(slab, surface, thickness[first : first + 8])
    _draw_blobs(canvas, SPINE, rng, variation=0.02)
    _draw_blobs(canvas, FACE_PARTS, rng, variation=0.05)
    _draw_cerebrum(canvas, rng)
    _draw_cerebellum(canvas)
    _draw_blobs(canvas, DEEP_PARTS, rng, variation=0.06)
    _draw_blobs(canvas, VENTRICLES, rng, variation=0.05, size=rng.uniform(0.8, 1.3))
    texture = _texture(canvas.labels.shape, rng)
    return Head(labels=canvas.labels, texture=texture, affine=_pose(rng) @ canvas.affine)


@dataclass(frozen=True, kw_only=True)
class _Canvas:
    """Label map in the making, with the position of each voxel in the undeformed head, shape (3, i, j, k)."""

    labels: NDArray[np.uint8]
    points: Array
    affine: NDArray[np.float64]

    @classmethod
    def blank(cls, spacing: float, rng: np.random.Generator) -> _Canvas:
        axes = [
            np.arange(low, high, spacing, dtype=np.float32)
            for low, high in zip(_LOW_CORNER, _HIGH_CORNER, strict=True)
        ]
        points = np.stack(np.meshgrid(*axes, indexing="ij"))
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = _LOW_CORNER
        return cls(
            labels=np.zeros(points.shape[1:], np.uint8), points=_deform(points, affine, rng), affine=affine
        )

    def around(self, centre: Vector, reach: Sequence[float]) -> tuple[slice, slice, slice]:
        """Slices that hold every voxel within reach (mm) of a place, whatever the deformation."""
        margin = 14.0
        index = [
            (np.array([c - r - margin, c + r + margin]) - self.affine[i, 3]) / self.affine[i, i]
            for i, (c, r) in enumerate(zip(centre, reach, strict=True))
        ]
        x, y, z = (slice(max(0, int(low)), max(0, int(high) + 1)) for low, high in index)
        return x, y, z

    def field(
        self, rng: np.random.Generator, wavelength: float, box: tuple[slice, slice, slice] | None = None
    ) -> Array:
        """Smooth random field of about unit variance, over all voxels or those of a box."""
        affine, shape = self.affine.copy(), self.labels.shape
        if box:
            affine[:3, 3] += affine.diagonal()[:3] * [s.start for s in box]
            shape = self.labels[box].shape
        return waves_on_grid(shape, affine, rng, wavelength=wavelength, count=4)

    def slab(self, first: int, last: int) -> _Canvas:
        """The part between two indices of the first axis; what is painted there is painted here."""
        affine = self.affine.copy()
        affine[0, 3] += first * affine[0, 0]
        return _Canvas(labels=self.labels[first:last], points=self.points[:, first:last], affine=affine)

    def paint(self, where: NDArray[np.bool_], tissue: str, box: tuple[slice, ...] = ()) -> None:
        """Give voxels, of all or of those of a box, the label of a tissue."""
        self.labels[box][where] = PHANTOM_LABELS.index(tissue)


def _draw_blobs(
    canvas: _Canvas, blobs: Sequence[Blob], rng: np.random.Generator, *, variation: float, size: float = 1.0
) -> None:
    for blob in blobs:
        shape = blob.resized(size * (1 + variation * rng.uniform(-1, 1)))
        reach = (max(shape.radii),) * 3 if shape.pitch else shape.radii
        for side in shape.sides():
            box = canvas.around(side.at, reach)
            canvas.paint(side.contains(canvas.points[(slice(None), *box)]), side.tissue, box)


def _draw_outer_layers(canvas: _Canvas) -> Array:
    """Skin, fat beneath it, muscle within; return the distance to the skin."""
    points = canvas.points
    surface = union(SCALP.distance(points), FACE.distance(points), 14)
    surface = union(surface, NECK.distance(points), 14)
    surface = union(surface, NOSE.distance(points), 5)
    below_vault = np.clip((-20 - points[2]) / 60, 0, 1)
    canvas.paint(surface < 0, "muscle")
    canvas.paint((surface < -2.2) & (surface > -5.5 - 4 * below_vault), "fat")
    # Fat between the muscles of neck and face.
    planes = np.sin(points[0] / 5.5 + np.sin(points[1] / 9)) * np.sin(
        points[1] / 6.5 + np.sin(points[0] / 11)
    )
    canvas.paint((planes > 0.55) & (surface < -5) & (points[2] < -30), "fat")
    return surface


def _draw_skull(canvas: _Canvas, surface: Array, thickness: Array) -> None:
    points = canvas.points
    vault = intersection(CRANIUM.distance(points), -points[2] - 24 + 0.06 * points[1], 12)
    cavity = union(vault, both_sides(TEMPORAL_FOSSA, points), 5)
    cavity = union(cavity, POSTERIOR_FOSSA.distance(points), 5)
    canvas.paint((cavity < thickness) & (points[2] > -72) & (surface < -4.5), "bone")
    diploe = (cavity > 1.9) & (cavity < thickness - 1.7) & (points[2] > -14)
    canvas.paint(diploe, "marrow")
    canvas.paint(cavity < 0, "csf")


def _draw_cerebrum(canvas: _Canvas, rng: np.random.Generator) -> None:
    box = canvas.around(CEREBRUM.at, CEREBRUM.radii)
    points = canvas.points[(slice(None), *box)]
    hull = intersection(CEREBRUM.distance(points), -points[2] - 20, 8)
    hull = union(hull, both_sides(TEMPORAL_LOBE, points), 3)
    midline = np.hypot(points[0], np.maximum(0, -CALLOSUM.distance(points)))
    depth = np.minimum(-hull, midline)
    pial = np.minimum(depth - 0.8, _sulci(canvas, box, depth, rng))
    pial = np.minimum(pial, _sylvian_fissure(points) - 1.4)
    ribbon = 3.4 + 0.3 * canvas.field(rng, 45, box)
    inside = hull < 0
    canvas.paint(inside, "csf", box)
    canvas.paint(inside & (pial > 0), "grey matter", box)
    canvas.paint(inside & (pial > ribbon), "white matter", box)


def _sulci(canvas: _Canvas, box: tuple[slice, slice, slice], depth: Array, rng: np.random.Generator) -> Array:
    """Distance to the wall of the nearest sulcus: zero level sets of a random field, open at the surface.

    The field is read mostly at the radial projection of a point, so that its level sets stand upright.
    """
    points = canvas.points[(slice(None), *box)]
    radius = np.sqrt(np.square(points).sum(axis=0)) + 1
    upright = points * (0.6 * 62 / radius + 0.4)
    upright += np.stack([2.5 * canvas.field(rng, 34, box) for _ in range(3)])
    folding = _waves(upright, rng, wavelength=24, count=10)
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(folding, np.float32(canvas.affine[0, 0]))))
    floor = rng.uniform(13, 17) + 4 * canvas.field(rng, 35, box)
    result: Array = np.abs(folding) / (slope + 0.02) - 0.8 + 1.2 * np.maximum(0, depth - floor)
    return result


def _sylvian_fissure(points: Array) -> Array:
    """Distance to a wavy sheet from the side of the brain to the insula."""
    x, y, z = points
    beyond = np.maximum(0, 36 - np.abs(x)) + np.maximum(0, np.abs(y + 2) - 30)
    sheet = z + 4 + 0.35 * y + 2.5 * np.sin(x / 5 + y / 12)
    result: Array = 0.85 * np.abs(sheet) + beyond
    return result


def _draw_cerebellum(canvas: _Canvas) -> None:
    box = canvas.around(CEREBELLUM.at, CEREBELLUM.radii)
    points = canvas.points[(slice(None), *box)]
    depth = -CEREBELLUM.distance(points)
    fan = np.sin(24 * np.arctan2(points[2] + 34, -(points[1] + 12)) + np.abs(points[0]) / 14)
    notch = np.hypot(points[0], np.maximum(0, points[1] + 62)) - 2
    canvas.paint(depth > 0, "grey matter", box)
    canvas.paint((depth > 0) & (((fan > 0.88) & (depth < 7)) | (notch < 0)), "csf", box)
    canvas.paint(depth > 9.5 + 4.5 * fan, "white matter", box)


def _deform(points: Array, affine: NDArray[np.float64], rng: np.random.Generator) -> Array:
    """Size, egg shape and smooth random displacement that make the head of one participant."""
    size = (rng.uniform(0.96, 1.04) * rng.uniform(0.97, 1.03, 3)).astype(np.float32)
    shape = points.shape[1:]
    moved = np.empty_like(points)
    for axis in range(3):
        slow = waves_on_grid(shape, affine, rng, wavelength=110, count=4)
        quick = waves_on_grid(shape, affine, rng, wavelength=45, count=4)
        moved[axis] = points[axis] * size[axis] + 1.4 * slow + 0.5 * quick
    moved[0] *= 1 + 0.0013 * np.clip(points[1], -60, 90)
    return moved


def _texture(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.2, truncate=3)
    texture: Array = 1 + 0.025 * noise / noise.std()
    return texture


def _pose(rng: np.random.Generator) -> NDArray[np.float64]:
    pose = np.eye(4)
    first, second, third = rng.uniform(-4, 4, 3)
    pose[:3, :3] = rotation_matrix((first, second, third))
    pose[:3, 3] = rng.uniform(-3, 3, 3)
    return pose


def _waves(points: Array, rng: np.random.Generator, *, wavelength: float, count: int) -> Array:
    """Random field of about unit variance at points, shape (3, ...): a sum of plane waves."""
    total = np.zeros(points.shape[1:], np.float32)
    for (a, b, c), phase in zip(*random_waves(rng, wavelength, count), strict=True):
        total += np.cos(a * points[0] + b * points[1] + c * points[2] + phase)
    return total * np.float32(math.sqrt(2 / count))
