"""Scans in and out of the distribution that a model is meant for, which its detector is fitted to.

They are for models of other body parts than the head, whose scans are told by their brains. Both are made of
the reference group and go through the same alterations, so that they differ in contrast and field of view,
not in whose body is shown. The alterations are milder than in training, where a model learns from scans more
unusual than any that a hospital makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.training.pairs import Pair, draw_pair
from bids_harmonize.training.recipe import WITHOUT_BRAIN, Recipe
from bids_harmonize.training.sources import ReferenceExample

# What model cards call scans in distribution.
FAMILIAR = "familiar"
# In-distribution scans are altered mildly by every family. The scale is not varied: a scan that is harmonized
# is divided by its own bright value, and so are these.
MILD = Recipe(frequencies=WITHOUT_BRAIN, unaltered=0.0, mild=1.0, mild_strength=0.4, scale_jitter=0.0)
# How scans are stored and of whom they are, in and out of distribution alike: the range of people's sizes;
# how often, and to what quantile of the foreground, the brightest voxels are clipped; how often, and of how
# many voxels, slices are thick.
SIZES = (0.82, 1.12)
CLIPPED, CLIP_QUANTILES = 0.2, (0.96, 0.999)
THICK, MAX_SLICE_VOXELS = 0.25, 3
# What is darker than this share of the bright value is air, gas or bone.
DARK = 0.12
# Shares of an axis that a view keeps: a box of two or three axes, a slab of one.
BOX, SLAB = (0.15, 0.35), (0.06, 0.18)
# Share of a view that is not air, if there is such a view.
MIN_FOREGROUND = 0.15
# Field of view, voxel size and range of radii of objects that are no heads, mm.
EXTENT, VOXEL, RADII = 200.0, 2.0, (30.0, 95.0)


@dataclass(frozen=True, kw_only=True)
class LabelledScan:
    """A scan, scaled to a bright value of 1 when it is made; `kind` is `FAMILIAR` or one of `OOD_CLASSES`."""

    kind: str
    volume: Volume
    zooms: tuple[float, float, float]


def sample_in_distribution(sources: Sequence[ReferenceExample], rng: np.random.Generator) -> LabelledScan:
    """Draw a scan that a model is meant for."""
    return _labelled(FAMILIAR, _altered(_draw_source(sources, rng), rng))


def sample_ood(sources: Sequence[ReferenceExample], rng: np.random.Generator) -> LabelledScan:
    """Draw a scan that no model is meant for."""
    weights = np.array(list(OOD_CLASSES.values()))
    kind = list(OOD_CLASSES)[int(rng.choice(len(OOD_CLASSES), p=weights / weights.sum()))]
    return make_ood(_draw_source(sources, rng), kind, rng)


def make_ood(source: ReferenceExample, kind: str, rng: np.random.Generator) -> LabelledScan:
    """Make a scan of a kind, one of `OOD_CLASSES`, from a source."""
    if kind in VIEWS:
        pair = _altered(source, rng)
        view = VIEWS[kind](pair.augmented, rng)
        return LabelledScan(kind=kind, volume=view / np.float32(intensity_scale(view)), zooms=pair.zooms)
    example = OBJECTS[kind](rng) if kind in OBJECTS else _inverted(source, rng)
    return _labelled(kind, _altered(example, rng))


def of_another_person(scan: LabelledScan, rng: np.random.Generator) -> LabelledScan:
    """The scan of a person of another size, and as some scanners store it: clipped, or of thick slices.

    Scans in and out of distribution are treated alike, so that this says nothing of where they belong.
    """
    size = float(np.exp(rng.uniform(*np.log(SIZES))))
    zooms = [length * size for length in scan.zooms]
    volume = scan.volume
    if rng.random() < THICK:
        axis, voxels = int(rng.integers(3)), int(rng.integers(2, MAX_SLICE_VOXELS + 1))
        starts = np.arange(0, volume.shape[axis] - voxels + 1, voxels)
        if starts.size:
            volume = np.mean([volume.take(starts + n, axis) for n in range(voxels)], axis=0, dtype=np.float32)
            zooms[axis] *= voxels
    if rng.random() < CLIPPED:
        foreground = volume[volume > DARK * intensity_scale(volume)]
        if foreground.size:
            volume = np.minimum(volume, np.quantile(foreground, rng.uniform(*CLIP_QUANTILES)))
    first, second, third = zooms
    return LabelledScan(kind=scan.kind, volume=volume.astype(np.float32), zooms=(first, second, third))


def _labelled(kind: str, pair: Pair) -> LabelledScan:
    return LabelledScan(kind=kind, volume=pair.augmented, zooms=pair.zooms)


def _altered(source: ReferenceExample, rng: np.random.Generator) -> Pair:
    return draw_pair([source], rng, MILD)


def _draw_source(sources: Sequence[ReferenceExample], rng: np.random.Generator) -> ReferenceExample:
    return sources[int(rng.integers(len(sources)))]


def _example(volume: Volume, like: ReferenceExample) -> ReferenceExample:
    return ReferenceExample(volume=volume, zooms=like.zooms, region=like.region, inside=like.inside)


# --- Contrasts --------------------------------------------------------------------------------------------


def _body(volume: Volume) -> Mask:
    closed = ndimage.binary_closing(volume > DARK * intensity_scale(volume), iterations=3)
    return np.asarray(ndimage.binary_fill_holes(closed), dtype=bool)


def _inverted(source: ReferenceExample, rng: np.random.Generator) -> ReferenceExample:
    """Dark where it was bright, inside the body or everywhere."""
    volume = source.contrast(MILD, rng, 1.0)[0]
    turned = np.maximum(intensity_scale(volume) * np.float32(rng.uniform(1, 1.2)) - volume, 0)
    return _example(turned if rng.random() < 0.4 else turned * _body(volume), source)


# --- Objects ----------------------------------------------------------------------------------------------


def _bottle(rng: np.random.Generator) -> ReferenceExample:
    """A ball or bottle of fluid, with or without rods and balls in it."""
    x, y, z = _axes()
    radius, height = rng.uniform(*RADII, 2)
    ball = bool(rng.random() < 0.5)
    inside = (x**2 + y**2 < radius**2) & (np.abs(z) < height)
    inside = x**2 + y**2 + z**2 < radius**2 if ball else inside
    volume = inside.astype(np.float32)
    for _ in range(int(rng.integers(0, 8))):
        centre, size = rng.uniform(-0.7, 0.7, 3) * radius, rng.uniform(0.05, 0.35) * radius
        along = 0 if rng.random() < 0.5 else 1
        insert = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + along * (z - centre[2]) ** 2 < size**2
        volume[insert & inside] = rng.uniform(0, 1.5)
    return _object(ndimage.gaussian_filter(volume, 0.6), inside)


def _noise(rng: np.random.Generator) -> ReferenceExample:
    """Nothing but noise, of voxels or of blobs."""
    x, y, z = _axes()
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    blobs = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), rng.uniform(0, 3))
    return _object(np.abs(blobs), np.ones(shape, dtype=bool))


OBJECTS: Mapping[str, Callable[[np.random.Generator], ReferenceExample]] = {
    "phantom": _bottle,
    "noise": _noise,
}


def _axes() -> tuple[Volume, Volume, Volume]:
    """Coordinates in mm, ready to be broadcast."""
    line = np.arange(-EXTENT / 2, EXTENT / 2, VOXEL, dtype=np.float32)
    return line[:, None, None], line[:, None], line


def _object(volume: Volume, inside: Mask) -> ReferenceExample:
    zooms = (VOXEL, VOXEL, VOXEL)
    return ReferenceExample(volume=volume, zooms=zooms, region=inside, inside=inside.astype(np.float32))


# --- Views ------------------------------------------------------------------------------------------------


def _box(volume: Volume, rng: np.random.Generator) -> Volume:
    """A part that is small along two axes or three."""
    shares = rng.uniform(*BOX, 3).tolist()
    if rng.random() < 0.5:
        shares[int(rng.integers(3))] = 1.0
    return _view(volume, shares, rng)


def _slab(volume: Volume, rng: np.random.Generator) -> Volume:
    """A few slices."""
    shares = [1.0, 1.0, 1.0]
    shares[int(rng.integers(3))] = float(rng.uniform(*SLAB))
    return _view(volume, shares, rng)


VIEWS: Mapping[str, Callable[[Volume, np.random.Generator], Volume]] = {"box": _box, "slab": _slab}


def _view(volume: Volume, shares: Sequence[float], rng: np.random.Generator) -> Volume:
    """A part of the volume that is not mostly air; of several that are, the one with the least air."""
    extent = [max(1, round(n * share)) for n, share in zip(volume.shape, shares, strict=True)]
    views = []
    for _ in range(10):
        starts = [int(rng.integers(n - m + 1)) for n, m in zip(volume.shape, extent, strict=True)]
        view = volume[tuple(slice(a, a + m) for a, m in zip(starts, extent, strict=True))]
        views.append(view)
        if np.mean(view > DARK) > MIN_FOREGROUND:
            break
    return np.ascontiguousarray(max(views, key=lambda view: float(np.mean(view > DARK))))


# Relative frequency of each kind.
OOD_CLASSES: Mapping[str, float] = {
    "inverted": 2.0,
    "phantom": 0.7,
    "noise": 0.2,
    "box": 0.5,
    "slab": 0.3,
}
