"""A digital multi-site head, written as a raw BIDS dataset.

The demonstration, the tests and the benchmarks run on it: every person is an analytic head with an anatomy of
its own, and every site scans its people with its own field strength, sequence, timing, grid, receiver gain,
shading and noise. The signals are those of `bids_harmonize.acquisition`, so the truth of a voxel is known.

Positions are millimetres in RAS+ (right, anterior, superior), times milliseconds, flip angles degrees.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NoReturn

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.acquisition import Protocol, SequenceName
from bids_harmonize.errors import CannotCreate, HarmonizeError, InputOutputError, UsageError

Array = NDArray[np.float32]
Vector = tuple[float, float, float]
Suffix = Literal["T1w", "T2w"]

#: Name of each label: `LABELS[k]` is the tissue of the voxels that hold k.
LABELS = (
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

# A change of what is drawn must change this, so that an older phantom is refused and not half overwritten.
_VERSION = "1.0.0"

_LOW_CORNER: Vector = (-88.0, -106.0, -132.0)
_HIGH_CORNER: Vector = (88.0, 116.0, 90.0)


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
        affine[:3, :3] = _rotation(self.oblique) @ affine[:3, :3]
        centre = (np.add(self.low, self.high)) / 2
        affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """What the coil and the receiver do to the signal.

    Parameters
    ----------
    gain : float
        Raw units per unit of signal.
    snr : float
        Signal of white matter over the standard deviation of the noise in each channel.
    shading : float
        Amplitude of the smooth receive field, as its natural logarithm.
    """

    gain: float
    snr: float
    shading: float


@dataclass(frozen=True, kw_only=True)
class Head:
    """A person: label map, texture and place in the scanner.

    Attributes
    ----------
    labels : ndarray of uint8, shape (i, j, k)
        Index into `LABELS`.
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
        resampled: NDArray[np.uint8] = _resample(self.labels, self.affine, grid, order=0)
        return resampled


@dataclass(frozen=True, kw_only=True)
class Run:
    """One scan of the dataset: whose, where, how and under which name.

    `seeds` are the dataset's seed and the person's number; with them `head_labels` draws the same person.
    """

    site: str
    session: str | None
    suffix: Suffix
    extension: str
    dtype: str
    protocol: Protocol
    grid: Grid
    receiver: Receiver
    seeds: tuple[int, int]

    @property
    def participant(self) -> str:
        """The participant's label with its prefix, such as ``sub-01``."""
        return f"sub-{self.seeds[1] + 1:02d}"

    @property
    def path(self) -> Path:
        """Path of the image within the dataset."""
        session = [f"ses-{self.session}"] if self.session else []
        name = "_".join([self.participant, *session, self.suffix])
        return Path(self.participant, *session, "anat", name + self.extension)


# --- The head ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Blob:
    """A superellipsoid of one tissue; a mirrored one is drawn left and right."""

    tissue: str
    at: Vector
    radii: Vector
    mirrored: bool = False
    boxy: bool = False
    pitch: float = 0.0

    def sides(self) -> Iterator[_Blob]:
        yield self
        if self.mirrored:
            yield replace(self, at=(-self.at[0], self.at[1], self.at[2]))

    def resized(self, factor: float) -> _Blob:
        a, b, c = self.radii
        return replace(self, radii=(a * factor, b * factor, c * factor))

    def distance(self, points: Array) -> Array:
        """Signed distance (mm, negative inside) of points, shape (3, ...), along the ray from the centre."""
        offsets = self._offsets(points)
        level = np.sqrt(self._level(offsets))
        if self.boxy:
            level = np.sqrt(level)
        x, y, z = offsets
        radius = np.sqrt(x * x + y * y + z * z)
        result: Array = radius - radius / np.maximum(level, 1e-3)
        return result

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """Whether points, shape (3, ...), lie inside."""
        inside: NDArray[np.bool_] = self._level(self._offsets(points)) < 1
        return inside

    def _offsets(self, points: Array) -> tuple[Array, Array, Array]:
        x, y, z = (points[axis] - np.float32(self.at[axis]) for axis in range(3))
        if self.pitch:
            cosine, sine = math.cos(math.radians(self.pitch)), math.sin(math.radians(self.pitch))
            y, z = cosine * y + sine * z, cosine * z - sine * y
        return x, y, z

    def _level(self, offsets: Sequence[Array]) -> Array:
        """Sum of the squares (boxy: fourth powers) of the offsets in units of the radii; 1 on the surface."""
        x, y, z = (np.square(u / np.float32(r)) for u, r in zip(offsets, self.radii, strict=True))
        level: Array = x * x + y * y + z * z if self.boxy else x + y + z
        return level


_SCALP = _Blob(tissue="muscle", at=(0, 0, 0), radii=(77, 94, 79))
_FACE = _Blob(tissue="muscle", at=(0, 30, -54), radii=(57, 55, 63), boxy=True, pitch=6)
_NECK = _Blob(tissue="muscle", at=(0, -22, -130), radii=(56, 58, 90), boxy=True, pitch=-8)
_NOSE = _Blob(tissue="muscle", at=(0, 88, -44), radii=(12, 20, 14), pitch=-35)

_CRANIUM = _Blob(tissue="csf", at=(0, 0, 0), radii=(65, 82, 67))
_TEMPORAL_FOSSA = _Blob(tissue="csf", at=(38, 8, -24), radii=(23, 38, 24), mirrored=True, pitch=-8)
_POSTERIOR_FOSSA = _Blob(tissue="csf", at=(0, -38, -34), radii=(51, 34, 33))

_CEREBRUM = _Blob(tissue="white matter", at=(0, 0, 0), radii=(62.5, 79.5, 64.5))
_TEMPORAL_LOBE = replace(_TEMPORAL_FOSSA, radii=(20.5, 35.5, 21.5))
_CALLOSUM = _Blob(tissue="white matter", at=(0, -4, 8), radii=(200, 37, 20), pitch=-8)
_CEREBELLUM = _Blob(tissue="grey matter", at=(0, -41, -36), radii=(47, 28, 25))

# Later entries are drawn over earlier ones.
_FACE_PARTS = (
    _Blob(tissue="fat", at=(42, 52, -62), radii=(13, 18, 22), mirrored=True),
    _Blob(tissue="bone", at=(30, 62, -46), radii=(21, 20, 22), mirrored=True),
    _Blob(tissue="bone", at=(0, 62, -66), radii=(27, 25, 7)),
    _Blob(tissue="bone", at=(0, 42, -97), radii=(44, 42, 11), pitch=10),
    _Blob(tissue="marrow", at=(0, 42, -97), radii=(41, 39, 8), pitch=10),
    _Blob(tissue="bone", at=(0, 37, -97), radii=(38, 36, 16), pitch=10),
    _Blob(tissue="muscle", at=(0, 36, -95), radii=(36, 34, 22), pitch=10),
    _Blob(tissue="fat", at=(0, 40, -104), radii=(22, 24, 5), pitch=10),
    _Blob(tissue="air", at=(0, 46, -74), radii=(20, 28, 2.5)),
    _Blob(tissue="fat", at=(31, 54, -22), radii=(17, 25, 16), mirrored=True),
    _Blob(tissue="muscle", at=(31, 55, -10), radii=(4, 18, 2), mirrored=True, pitch=-8),
    _Blob(tissue="muscle", at=(31, 55, -34), radii=(4, 18, 2), mirrored=True, pitch=8),
    _Blob(tissue="muscle", at=(21, 53, -22), radii=(2, 18, 4), mirrored=True),
    _Blob(tissue="white matter", at=(27, 48, -22), radii=(2.4, 18, 2.4), mirrored=True),
    _Blob(tissue="bone", at=(31, 67, -22), radii=(13.2, 13.2, 13.2), mirrored=True),
    _Blob(tissue="csf", at=(31, 67, -22), radii=(12, 12, 12), mirrored=True),
    _Blob(tissue="muscle", at=(31, 75.5, -22), radii=(4.5, 2.5, 4.5), mirrored=True),
    _Blob(tissue="air", at=(28, 62, -50), radii=(12, 14, 14), mirrored=True),
    _Blob(tissue="air", at=(0, 58, -46), radii=(13, 34, 15)),
    _Blob(tissue="muscle", at=(7, 56, -48), radii=(3, 24, 10), mirrored=True),
    _Blob(tissue="bone", at=(0, 60, -46), radii=(1.2, 30, 14)),
    _Blob(tissue="air", at=(7, 30, -34), radii=(6.5, 9, 8), mirrored=True),
    _Blob(tissue="air", at=(9, 84, 4), radii=(9, 4, 9), mirrored=True),
    _Blob(tissue="air", at=(0, 16, -62), radii=(11, 7, 18)),
    _Blob(tissue="air", at=(0, 8, -105), radii=(8, 6, 42), boxy=True),
    _Blob(tissue="bone", at=(56, -20, -36), radii=(9, 16, 14), mirrored=True),
    _Blob(tissue="air", at=(56, -20, -36), radii=(6, 12, 10), mirrored=True),
)

_SPINE = (
    _Blob(tissue="bone", at=(0, -10, -50), radii=(11, 22, 8), pitch=-35),
    _Blob(tissue="marrow", at=(0, -10, -50), radii=(9, 19, 5), pitch=-35),
    _Blob(tissue="bone", at=(0, -40, -112), radii=(19, 19, 46), boxy=True),
    _Blob(tissue="muscle", at=(19, -52, -112), radii=(16, 15, 60), mirrored=True, boxy=True),
    *(
        _Blob(tissue=tissue, at=(0, -12, z), radii=radii, boxy=True)
        for z in (-80, -97, -114, -131)
        for tissue, radii in (("bone", (14.0, 11.0, 7.4)), ("marrow", (11.5, 9.0, 6.0)))
    ),
    _Blob(tissue="csf", at=(0, -32, -104), radii=(9.5, 8, 48), boxy=True),
    _Blob(tissue="white matter", at=(0, -31, -98), radii=(5.5, 4.5, 56), boxy=True),
)

_DEEP_PARTS = (
    _Blob(tissue="white matter", at=(10, 2, 2), radii=(24, 36, 18), mirrored=True),
    _Blob(tissue="deep grey matter", at=(25, 4, 1), radii=(5.5, 17, 10), mirrored=True),
    _Blob(tissue="deep grey matter", at=(10, -12, 3), radii=(9, 15, 9), mirrored=True),
    _Blob(tissue="deep grey matter", at=(14, 20, 10), radii=(6, 10, 9), mirrored=True),
    _Blob(tissue="deep grey matter", at=(17, -2, 16), radii=(4, 18, 5), mirrored=True),
    _Blob(tissue="grey matter", at=(26, -12, -24), radii=(6, 16, 6), mirrored=True),
    _Blob(tissue="csf", at=(0, 8, -22), radii=(14, 14, 7)),
    _Blob(tissue="csf", at=(0, -34, -8), radii=(14, 6, 9)),
    _Blob(tissue="white matter", at=(0, -14, -20), radii=(14, 10, 12), pitch=20),
    _Blob(tissue="white matter", at=(0, -13, -37), radii=(16, 13, 13)),
    _Blob(tissue="white matter", at=(0, -24, -54), radii=(9, 8, 22), pitch=-22),
    _Blob(tissue="white matter", at=(15, -28, -37), radii=(14, 13, 7), mirrored=True),
)

_VENTRICLES = (
    _Blob(tissue="csf", at=(8, 22, 12), radii=(4.5, 13, 7), mirrored=True, pitch=-15),
    _Blob(tissue="csf", at=(9, -6, 20), radii=(6, 26, 5.5), mirrored=True, pitch=-4),
    _Blob(tissue="csf", at=(19, -36, 10), radii=(7, 14, 8), mirrored=True, pitch=25),
    _Blob(tissue="csf", at=(31, -16, -18), radii=(3, 15, 3), mirrored=True),
    _Blob(tissue="csf", at=(0, -4, 0), radii=(2.2, 13, 9), pitch=-10),
    _Blob(tissue="csf", at=(0, -29, -36), radii=(7, 5, 8)),
)


def head_labels(seed: int, person: int = 0, *, spacing: float = 1.75) -> Head:
    """Draw a person.

    Parameters
    ----------
    seed, person : int
        The dataset's seed and the person's number in it; together they decide the anatomy.
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
    _draw_blobs(canvas, _SPINE, rng, variation=0.02)
    _draw_blobs(canvas, _FACE_PARTS, rng, variation=0.05)
    _draw_cerebrum(canvas, rng)
    _draw_cerebellum(canvas)
    _draw_blobs(canvas, _DEEP_PARTS, rng, variation=0.06)
    _draw_blobs(canvas, _VENTRICLES, rng, variation=0.05, size=rng.uniform(0.8, 1.3))
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
        """Slices that hold every voxel within reach of a place, whatever the deformation."""
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
        return _waves_on_grid(shape, affine, rng, wavelength=wavelength, count=4)

    def slab(self, first: int, last: int) -> _Canvas:
        """The part between two indices of the first axis; what is painted there is painted here."""
        affine = self.affine.copy()
        affine[0, 3] += first * affine[0, 0]
        return _Canvas(labels=self.labels[first:last], points=self.points[:, first:last], affine=affine)

    def paint(self, where: NDArray[np.bool_], tissue: str, box: tuple[slice, ...] = ()) -> None:
        self.labels[box][where] = LABELS.index(tissue)


def _draw_blobs(
    canvas: _Canvas, blobs: Sequence[_Blob], rng: np.random.Generator, *, variation: float, size: float = 1.0
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
    surface = _union(_SCALP.distance(points), _FACE.distance(points), 14)
    surface = _union(surface, _NECK.distance(points), 14)
    surface = _union(surface, _NOSE.distance(points), 5)
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
    vault = _intersection(_CRANIUM.distance(points), -points[2] - 24 + 0.06 * points[1], 12)
    cavity = _union(vault, _both_sides(_TEMPORAL_FOSSA, points), 5)
    cavity = _union(cavity, _POSTERIOR_FOSSA.distance(points), 5)
    canvas.paint((cavity < thickness) & (points[2] > -72) & (surface < -4.5), "bone")
    diploe = (cavity > 1.9) & (cavity < thickness - 1.7) & (points[2] > -14)
    canvas.paint(diploe, "marrow")
    canvas.paint(cavity < 0, "csf")


def _draw_cerebrum(canvas: _Canvas, rng: np.random.Generator) -> None:
    box = canvas.around(_CEREBRUM.at, _CEREBRUM.radii)
    points = canvas.points[(slice(None), *box)]
    hull = _intersection(_CEREBRUM.distance(points), -points[2] - 20, 8)
    hull = _union(hull, _both_sides(_TEMPORAL_LOBE, points), 3)
    midline = np.hypot(points[0], np.maximum(0, -_CALLOSUM.distance(points)))
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
    box = canvas.around(_CEREBELLUM.at, _CEREBELLUM.radii)
    points = canvas.points[(slice(None), *box)]
    depth = -_CEREBELLUM.distance(points)
    fan = np.sin(24 * np.arctan2(points[2] + 34, -(points[1] + 12)) + np.abs(points[0]) / 14)
    notch = np.hypot(points[0], np.maximum(0, points[1] + 62)) - 2
    canvas.paint(depth > 0, "grey matter", box)
    canvas.paint((depth > 0) & (((fan > 0.88) & (depth < 7)) | (notch < 0)), "csf", box)
    canvas.paint(depth > 9.5 + 4.5 * fan, "white matter", box)


def _both_sides(blob: _Blob, points: Array) -> Array:
    left, right = (side.distance(points) for side in blob.sides())
    return np.minimum(left, right)


def _union(first: Array, second: Array, blend: float) -> Array:
    """Smaller of two distances, rounded where they are within `blend` mm of each other."""
    weight = np.clip(0.5 + 0.5 * (second - first) / blend, 0, 1)
    result: Array = second + weight * (first - second) - blend * weight * (1 - weight)
    return result


def _intersection(first: Array, second: Array, blend: float) -> Array:
    return -_union(-first, -second, blend)


def _random_waves(rng: np.random.Generator, wavelength: float, count: int) -> tuple[Array, Array]:
    """Wave vectors, shape (count, 3), of one wavelength in random directions, and their phases."""
    vectors = rng.standard_normal((count, 3))
    vectors *= 2 * np.pi / wavelength / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32)


def _waves(points: Array, rng: np.random.Generator, *, wavelength: float, count: int) -> Array:
    """Random field of about unit variance at points, shape (3, ...): a sum of plane waves."""
    total = np.zeros(points.shape[1:], np.float32)
    for (a, b, c), phase in zip(*_random_waves(rng, wavelength, count), strict=True):
        total += np.cos(a * points[0] + b * points[1] + c * points[2] + phase)
    return total * np.float32(math.sqrt(2 / count))


def _waves_on_grid(
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    wavelength: float,
    count: int,
) -> Array:
    """The field of `_waves` at the voxels of a regular grid."""
    vectors, phases = _random_waves(rng, wavelength, count)
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


def _deform(points: Array, affine: NDArray[np.float64], rng: np.random.Generator) -> Array:
    """Size, egg shape and smooth random displacement that make the head of one person."""
    size = (rng.uniform(0.96, 1.04) * rng.uniform(0.97, 1.03, 3)).astype(np.float32)
    shape = points.shape[1:]
    moved = np.empty_like(points)
    for axis in range(3):
        slow = _waves_on_grid(shape, affine, rng, wavelength=110, count=4)
        quick = _waves_on_grid(shape, affine, rng, wavelength=45, count=4)
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
    pose[:3, :3] = _rotation((first, second, third))
    pose[:3, 3] = rng.uniform(-3, 3, 3)
    return pose


def _rotation(degrees: Vector) -> NDArray[np.float64]:
    """Rotation matrix: about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    return matrix


# --- The scan ---------------------------------------------------------------------------------------------


def render(head: Head, protocol: Protocol, grid: Grid, receiver: Receiver, *, seed: Sequence[int]) -> Array:
    """Scan a head.

    Partial volume arises from blurring the label map's signals to the voxel size before they are sampled; the
    noise is Rician (Gudbjartsson and Patz, 1995).

    Parameters
    ----------
    head : Head
    protocol : Protocol
    grid : Grid
    receiver : Receiver
    seed : sequence of int
        Decides the shading and the noise.

    Returns
    -------
    ndarray of float32, shape `grid.shape`
        Non-negative raw units.
    """
    rng = np.random.default_rng(tuple(seed))
    signals = np.array([protocol.signal(name) for name in LABELS], np.float32)
    blur = _blur_in_label_voxels(head, grid)
    ideal = ndimage.gaussian_filter(signals[head.labels] * head.texture, blur, truncate=3)
    clean = _resample(ideal, head.affine, grid, order=1) * _shading(grid, receiver, rng)
    sigma = protocol.signal("white matter") / receiver.snr
    real, imaginary = sigma * rng.standard_normal((2, *grid.shape), dtype=np.float32)
    result: Array = np.float32(receiver.gain) * np.hypot(clean + real, imaginary)
    return result


def _blur_in_label_voxels(head: Head, grid: Grid) -> list[float]:
    spacing = np.linalg.norm(head.affine[:3, :3], axis=0)
    zooms = dict(zip(grid.world_axes, grid.zooms, strict=True))
    return [0.35 * zooms[axis] / float(spacing[axis]) for axis in range(3)]


def _shading(grid: Grid, receiver: Receiver, rng: np.random.Generator) -> Array:
    slow = _waves_on_grid(grid.shape, grid.affine, rng, wavelength=330, count=4)
    quick = _waves_on_grid(grid.shape, grid.affine, rng, wavelength=160, count=4)
    return np.exp(np.float32(receiver.shading) * (0.7 * slow + 0.3 * quick))


def _resample(volume: NDArray[Any], affine: NDArray[np.float64], grid: Grid, *, order: int) -> NDArray[Any]:
    matrix = np.linalg.inv(affine) @ grid.affine
    resampled: NDArray[Any] = ndimage.affine_transform(
        volume, matrix[:3, :3], offset=matrix[:3, 3], output_shape=grid.shape, order=order, prefilter=False
    )
    return resampled


# --- The dataset ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """How a site acquires one modality."""

    protocol: Protocol
    grid: Grid
    receiver: Receiver


@dataclass(frozen=True, kw_only=True)
class _Site:
    """A scanner and its habits."""

    t1w: _Scan
    t2w: _Scan
    session: str | None = None
    extension: str = ".nii.gz"
    dtype: str = "int16"


_SITES = (
    _Site(
        t1w=_Scan(
            protocol=Protocol(field_strength=3.0, sequence="MPRAGE", tr=2300, te=2.98, ti=900, flip_angle=9),
            grid=Grid(zooms=(2, 2, 2)),
            receiver=Receiver(gain=1600, snr=35, shading=0.12),
        ),
        t2w=_Scan(
            protocol=Protocol(field_strength=3.0, sequence="spin echo", tr=3200, te=90),
            grid=Grid(zooms=(2, 2, 2)),
            receiver=Receiver(gain=1200, snr=25, shading=0.12),
        ),
    ),
    _Site(
        t1w=_Scan(
            protocol=Protocol(
                field_strength=1.5, sequence="spoiled gradient echo", tr=18, te=4.6, flip_angle=30
            ),
            grid=Grid(zooms=(1.5, 1.5, 2), axes="LAS", low=(-84, -102, -96)),
            receiver=Receiver(gain=1000, snr=22, shading=0.2),
        ),
        t2w=_Scan(
            protocol=Protocol(field_strength=1.5, sequence="spin echo", tr=4000, te=102),
            grid=Grid(zooms=(1.5, 1.5, 2), axes="LAS", low=(-84, -102, -96)),
            receiver=Receiver(gain=300, snr=18, shading=0.2),
        ),
    ),
    _Site(
        t1w=_Scan(
            protocol=Protocol(field_strength=3.0, sequence="spin echo", tr=600, te=12),
            grid=Grid(zooms=(2, 2, 2), axes="PSR"),
            receiver=Receiver(gain=30000, snr=40, shading=0.25),
        ),
        t2w=_Scan(
            protocol=Protocol(field_strength=3.0, sequence="spin echo", tr=5000, te=110),
            grid=Grid(zooms=(1.5, 1.5, 5), axes="LAS", low=(-84, -102, -74)),
            receiver=Receiver(gain=24000, snr=30, shading=0.25),
        ),
        extension=".nii",
        dtype="uint16",
    ),
    _Site(
        t1w=_Scan(
            protocol=Protocol(field_strength=1.5, sequence="MPRAGE", tr=1900, te=3.9, ti=1000, flip_angle=15),
            grid=Grid(zooms=(2, 2, 2), oblique=(-12, 3, 5)),
            receiver=Receiver(gain=4500, snr=28, shading=0.15),
        ),
        t2w=_Scan(
            protocol=Protocol(field_strength=1.5, sequence="spin echo", tr=5500, te=80),
            grid=Grid(zooms=(1.8, 1.8, 3), axes="RPS", oblique=(-12, 3, 5)),
            receiver=Receiver(gain=3500, snr=25, shading=0.15),
        ),
        session="01",
    ),
)


def plan_runs(*, seed: int = 0, sites: int = 4, people_per_site: int = 2) -> list[Run]:
    """Every run of the dataset, a person's runs together.

    Raises
    ------
    UsageError
        If the seed is negative, or there would be no site or no person.
    """
    if seed < 0 or sites < 1 or people_per_site < 1:
        raise UsageError("The phantom needs a seed of 0 or more, at least one site and one person per site.")
    return [
        run
        for person in range(sites * people_per_site)
        for run in _runs_of(seed, person, person // people_per_site)
    ]


def write_phantom(folder: Path, *, seed: int = 0, sites: int = 4, people_per_site: int = 2) -> Path:
    """Write the phantom as a raw BIDS dataset.

    The same arguments give the same bytes on the same machine. Writing over the same phantom is allowed.

    Parameters
    ----------
    folder : Path
        Where to write; it is created.
    seed : int
        Decides anatomies, shading, noise and ages.
    sites : int
        Number of sites; beyond the fourth they are the first four with other timing and gain.
    people_per_site : int
        Number of people, each with a T1w and a T2w scan.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CannotCreate
        If the folder holds something else, or cannot be made.
    InputOutputError
        If writing fails half-way.
    UsageError
        If the arguments make no dataset.
    """
    runs = plan_runs(seed=seed, sites=sites, people_per_site=people_per_site)
    description = _description(seed, sites, people_per_site)
    _claim(folder, description)
    try:
        _write_json(folder / "dataset_description.json", description)
        _write_tables(folder, runs, seed)
        for seeds, scans in groupby(runs, key=lambda run: run.seeds):
            head = head_labels(*seeds)
            for run in scans:
                _write_run(folder, run, head)
    except OSError as error:
        raise InputOutputError(f"Writing the phantom to {folder} failed: {error}.") from error
    return folder


def _runs_of(seed: int, person: int, site_number: int) -> list[Run]:
    site = _site(seed, site_number)
    scans: tuple[tuple[Suffix, _Scan], ...] = (("T1w", site.t1w), ("T2w", site.t2w))
    return [
        Run(
            site=_site_name(site_number),
            session=site.session,
            suffix=suffix,
            extension=site.extension,
            dtype=site.dtype,
            protocol=scan.protocol,
            grid=scan.grid,
            receiver=scan.receiver,
            seeds=(seed, person),
        )
        for suffix, scan in scans
    ]


def _site(seed: int, number: int) -> _Site:
    site = _SITES[number % len(_SITES)]
    if number < len(_SITES):
        return site
    rng = np.random.default_rng((seed, number, 3))
    return replace(site, t1w=_altered(site.t1w, rng), t2w=_altered(site.t2w, rng))


def _altered(scan: _Scan, rng: np.random.Generator) -> _Scan:
    """Another scanner of the same kind: timing within 10 %, where the order of tissues cannot change."""
    protocol, receiver = scan.protocol, scan.receiver
    tr, te = (round(float(t * rng.uniform(0.9, 1.1)), 2) for t in (protocol.tr, protocol.te))
    gain = float(receiver.gain * rng.uniform(0.4, 1.2))
    return replace(scan, protocol=replace(protocol, tr=tr, te=te), receiver=replace(receiver, gain=gain))


def _site_name(number: int) -> str:
    return f"site{number + 1:02d}"


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Make the folder, unless it holds anything but this phantom."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise CannotCreate(f"The folder {folder} cannot be created: {error.strerror}.") from error
    if occupied and _phantom_key(folder) != description["Phantom"]:
        raise CannotCreate(
            f"The folder {folder} is not empty and does not hold this phantom; choose another one."
        )


def _phantom_key(folder: Path) -> Any:
    try:
        found = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("Phantom") if isinstance(found, dict) else None


def _description(seed: int, sites: int, people_per_site: int) -> dict[str, Any]:
    return {
        "Name": "Digital multi-site head phantom",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "License": "CC0",
        # The validator warns where a raw dataset leaves these two out.
        "HEDVersion": "8.3.0",
        "SourceDatasets": [],
        "Authors": ["The bids-harmonize developers", "The bids-harmonize phantom"],
        "GeneratedBy": [{"Name": "bids_harmonize.phantom", "Version": _VERSION}],
        "Phantom": {"Version": _VERSION, "Seed": seed, "Sites": sites, "PeoplePerSite": people_per_site},
    }


_README = """# Digital multi-site head phantom

No person was scanned. Every participant is a drawn head with an anatomy of its own; every site scans its
participants with its own field strength, sequence, timing, voxel grid, receiver gain, shading and noise.
The signals follow the equations of the spin echo, the spoiled gradient echo and the inversion-prepared
gradient echo, with the times given in the sidecars. The file `dataset_description.json` holds the seed and
the numbers of sites and people from which `python -m bids_harmonize.phantom` writes the same dataset again.
"""

_PARTICIPANTS_JSON = {
    "site": {"Description": "Site at which the participant was scanned"},
    "age": {"Description": "Age of the participant, drawn at random", "Units": "year"},
}


# At the root of the dataset, so that every run inherits it; the BIDS validator recommends each field.
_SIDECAR_OF_ALL: dict[str, Any] = {
    "BodyPart": "HEAD",
    "Modality": "MR",
    "InstitutionAddress": "Nowhere",
    "InstitutionalDepartmentName": "Digital phantoms",
    "SoftwareVersions": _VERSION,
    "ReceiveCoilName": "None",
    "ReceiveCoilActiveElements": "None",
    "MatrixCoilMode": "None",
    "CoilCombinationMethod": "None",
    "NonlinearGradientCorrection": False,
    "PulseSequenceDetails": "Simulated from its signal equation",
    "DwellTime": 1e-05,
}


def _write_tables(folder: Path, runs: Sequence[Run], seed: int) -> None:
    rows = ["participant_id\tsite\tage"]
    for (_, person), scans in groupby(runs, key=lambda run: run.seeds):
        run = next(scans)
        age = np.random.default_rng((seed, person, 4)).integers(20, 80)
        rows.append(f"{run.participant}\t{run.site}\t{age}")
    _write(folder / "participants.tsv", ("\n".join(rows) + "\n").encode())
    _write_json(folder / "participants.json", _PARTICIPANTS_JSON)
    _write(folder / "README.md", _README.encode())
    for suffix in ("T1w", "T2w"):
        _write_json(folder / f"{suffix}.json", _SIDECAR_OF_ALL)


def _write_run(folder: Path, run: Run, head: Head) -> None:
    noise_seed = (*run.seeds, 2 if run.suffix == "T1w" else 5)
    scan = render(head, run.protocol, run.grid, run.receiver, seed=noise_seed)
    voxels = np.minimum(np.rint(scan), np.iinfo(run.dtype).max).astype(run.dtype)
    image = nib.Nifti1Image(voxels, run.grid.affine)
    image.set_qform(run.grid.affine, code=1)
    image.set_sform(run.grid.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    content = image.to_bytes()
    path = folder / run.path
    # A time stamp in the gzip header would make every copy of the dataset differ.
    _write(path, gzip.compress(content, 1, mtime=0) if run.extension.endswith(".gz") else content)
    _write_json(path.with_name(path.name.removesuffix(run.extension) + ".json"), _sidecar(run))


_SEQUENCE_FIELDS: dict[SequenceName, dict[str, Any]] = {
    "spin echo": {"PulseSequenceType": "Spin Echo", "ScanningSequence": "SE", "SequenceVariant": "SK"},
    "spoiled gradient echo": {
        "PulseSequenceType": "Spoiled Gradient Echo",
        "ScanningSequence": "GR",
        "SequenceVariant": ["SP", "OSP"],
    },
    "MPRAGE": {
        "PulseSequenceType": "MPRAGE",
        "ScanningSequence": ["GR", "IR"],
        "SequenceVariant": ["SK", "SP", "MP"],
    },
}


def _sidecar(run: Run) -> dict[str, Any]:
    """Acquisition metadata of a run in the units of BIDS, seconds and degrees."""
    protocol = run.protocol
    inversion = {"InversionTime": _seconds(protocol.ti)} if protocol.sequence == "MPRAGE" else {}
    return {
        **_scanner_fields(run),
        "MagneticFieldStrength": protocol.field_strength,
        **_SEQUENCE_FIELDS[protocol.sequence],
        "SequenceName": protocol.sequence,
        "RepetitionTime": _seconds(protocol.tr),
        "EchoTime": _seconds(protocol.te),
        **inversion,
        "FlipAngle": protocol.flip_angle,
        **_slice_fields(run.grid, protocol.tr),
    }


def _scanner_fields(run: Run) -> dict[str, str]:
    letter = chr(ord("A") + (int(run.site.removeprefix("site")) - 1) % 26)
    return {
        "Manufacturer": f"Phantom {letter}",
        "ManufacturersModelName": f"Digital head {run.protocol.field_strength:g}T",
        "DeviceSerialNumber": run.site,
        "StationName": run.site,
        "InstitutionName": run.site,
    }


def _slice_fields(grid: Grid, tr: float) -> dict[str, Any]:
    """Thick slices are acquired one by one, odd ones first; anything else is a volume."""
    if grid.zooms[2] < 4:
        return {"MRAcquisitionType": "3D"}
    count = grid.shape[2]
    order = [*range(0, count, 2), *range(1, count, 2)]
    timing = [_seconds(order.index(slice_) * tr / count) for slice_ in range(count)]
    return {"MRAcquisitionType": "2D", "SliceThickness": grid.zooms[2], "SliceTiming": timing}


def _seconds(milliseconds: float) -> float:
    return round(milliseconds / 1000, 6)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole; a leading dot hides an unfinished one from BIDS tools."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name("." + path.name)
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


# --- The command line -------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see --help.")


def _parser() -> _Parser:
    parser = _Parser(prog="python -m bids_harmonize.phantom", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write the dataset")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other people (default: 0)")
    parser.add_argument("--sites", type=int, default=4, help="number of sites (default: 4)")
    parser.add_argument("--people", type=int, default=2, help="people per site (default: 2)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the phantom from the command line; return the exit code."""
    try:
        options = _parser().parse_args(arguments)
        folder = write_phantom(
            options.folder.expanduser(),
            seed=options.seed,
            sites=options.sites,
            people_per_site=options.people,
        )
    except HarmonizeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"The phantom dataset is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
