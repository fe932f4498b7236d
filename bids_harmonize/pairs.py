"""Pairs of altered and original scan: what the network learns from.

The alterations of `kspace`, completed by tone curves and by the brightness of what surrounds the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.contrast import SurroundingGain, ToneCurve
from bids_harmonize.image import intensity_scale
from bids_harmonize.kspace import (
    Alteration,
    Apodization,
    CentrePerturbation,
    KSpace,
    LowBand,
    MagnitudePower,
    Noise,
    RadialGain,
    SmoothField,
)
from bids_harmonize.reference import Mask, ReferenceScan, Volume

# How often each family alters a scan. Without unaltered pairs the network does not leave a reference scan
# alone.
UNALTERED, MILD, MILD_STRENGTH = 0.12, 0.15, 0.3
FREQUENCIES = {
    "ToneCurve": 0.6,
    "LocalToneCurves": 0.4,
    "SurroundingGain": 0.6,
    "RadialGain": 0.4,
    "CentrePerturbation": 0.4,
    "MagnitudePower": 0.4,
    "LowBandToneMapped": 0.3,
    "LowBandOtherScan": 0.1,
    "Apodization": 0.4,
    "SmoothField": 0.6,
    "Noise": 0.5,
    "SkullStripped": 0.2,
    "Cropped": 0.3,
}
FAMILIES = (
    ToneCurve,
    SurroundingGain,
    RadialGain,
    CentrePerturbation,
    MagnitudePower,
    LowBand,
    Apodization,
    SmoothField,
    Noise,
)
# The bright value that scales a scan may be set by fat in one protocol and by white matter in another.
SCALE_JITTER = 0.1
WORKING_MM = 2.0


@dataclass(frozen=True, kw_only=True)
class Example:
    """A reference scan on a grid small enough to train on.

    `volume` is in units of its own white matter; `inside` is 1 in the brain, 0 outside, soft between.
    """

    volume: Volume
    zooms: tuple[float, float, float]
    brain: Mask
    inside: Volume


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Altered scan, scaled to a bright value of about 1, and the original in units of white matter."""

    altered: Volume
    original: Volume
    brain: Mask
    zooms: tuple[float, float, float]


def examples(scan: ReferenceScan) -> list[Example]:
    """Two versions of a scan: averaged to 2 mm, and every so-many-th voxel as it was measured.

    The latter keeps the noise and the sharp histograms of the full resolution.
    """
    volume = scan.volume / np.float32(scan.white_matter)
    averaged = _averaged(volume, scan.brain, scan.zooms)
    steps = [max(1, round(WORKING_MM / zoom)) for zoom in scan.zooms]
    every = tuple(slice(None, None, step) for step in steps)
    x, y, z = (zoom * step for zoom, step in zip(scan.zooms, steps, strict=True))
    return [averaged, _example(volume[every], (x, y, z), scan.brain[every])]


def _averaged(volume: Volume, brain: Mask, zooms: tuple[float, float, float]) -> Example:
    factors = [min(1.0, zoom / WORKING_MM) for zoom in zooms]
    smooth = ndimage.gaussian_filter(volume, [0.4 * (1 / f - 1) for f in factors])
    small = ndimage.zoom(smooth, factors, order=1, mode="nearest", grid_mode=True)
    mask = ndimage.zoom(brain.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True) > 0.5
    x, y, z = (zoom * n / m for zoom, n, m in zip(zooms, volume.shape, small.shape, strict=True))
    return _example(small, (x, y, z), mask)


def _example(volume: Volume, zooms: tuple[float, float, float], brain: Mask) -> Example:
    soft = ndimage.gaussian_filter(brain.astype(np.float32), [2.0 / zoom for zoom in zooms])
    return Example(volume=np.ascontiguousarray(volume), zooms=zooms, brain=brain, inside=soft)


def draw_pair(group: Sequence[Example], rng: np.random.Generator) -> Pair:
    """Alter one example of the group at random."""
    example = group[int(rng.integers(len(group)))]
    same_grid = [other for other in group if other.volume.shape == example.volume.shape]
    other = same_grid[int(rng.integers(len(same_grid)))]
    kind = rng.random()
    strength = 0.0 if kind < UNALTERED else MILD_STRENGTH if kind < UNALTERED + MILD else 1.0
    altered = example.volume if strength == 0 else alter(example, other, rng, strength)
    stripped = rng.random() < FREQUENCIES["SkullStripped"]
    if stripped:
        altered = altered * _loose(example.brain, rng)
    window = _field_of_view(example.volume.shape, rng)
    flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
    altered = np.ascontiguousarray(altered[window][flip])
    original = np.ascontiguousarray(example.volume[window][flip])
    brain = np.ascontiguousarray(example.brain[window][flip])
    jitter = np.exp(rng.normal(0, SCALE_JITTER))
    scaled = altered * np.float32(jitter / intensity_scale(altered))
    if stripped:
        original = original * (scaled > 0)
    return Pair(altered=scaled, original=original, brain=brain, zooms=example.zooms)


def alter(example: Example, other: Example, rng: np.random.Generator, strength: float) -> Volume:
    """The example in a synthetic contrast: tone curves, k-space, receive field, noise."""

    def happens(family: str) -> bool:
        return bool(rng.random() < FREQUENCIES[family])

    scale = np.float32(intensity_scale(example.volume))
    volume = example.volume / scale
    if happens("ToneCurve"):
        volume = ToneCurve.sample(rng, strength).apply(volume)
    if happens("LocalToneCurves"):
        volume = _local_tone(volume, rng, strength)
    if happens("SurroundingGain"):
        volume = SurroundingGain.sample(rng, strength).apply(volume, example.inside)
    volume = _alter_k_space(volume, example, other, rng, strength)
    if happens("SmoothField"):
        volume = SmoothField.sample(rng, strength).apply_to_image(volume)
    if happens("Noise"):
        volume = Noise.sample(rng, strength).apply_to_image(volume)
    return volume


def _alter_k_space(
    volume: Volume, example: Example, other: Example, rng: np.random.Generator, strength: float
) -> Volume:
    k_space = KSpace.of(volume, example.zooms)
    if rng.random() < FREQUENCIES["LowBandToneMapped"]:
        copy = KSpace.of(ToneCurve.sample(rng, strength).apply(volume), example.zooms)
        k_space = LowBand.sample(rng).apply(k_space, copy)
    if rng.random() < FREQUENCIES["LowBandOtherScan"]:
        # Wider, another head's anatomy would come along with its contrast.
        low_band = LowBand.sample(rng, largest_cutoff=0.03)
        k_space = low_band.apply(
            k_space, KSpace.of(other.volume / intensity_scale(other.volume), other.zooms)
        )
    families: tuple[type[Alteration], ...] = (RadialGain, CentrePerturbation, MagnitudePower, Apodization)
    for family in families:
        if rng.random() < FREQUENCIES[family.__name__]:
            k_space = family.sample(rng, strength).apply(k_space)
    return k_space.volume()


def _local_tone(volume: Volume, rng: np.random.Generator, strength: float) -> Volume:
    """Two tone curves, blended by a smooth field: contrast that differs from place to place."""
    first, second = (ToneCurve.sample(rng, strength).apply(volume) for _ in range(2))
    field = np.log(SmoothField.sample(rng, 6.0).field(volume.shape))
    share = 1 / (1 + np.exp(-2 * field))
    return first + share * (second - first)


def _loose(brain: Mask, rng: np.random.Generator) -> NDArray[np.float32]:
    """A skull-stripping mask, tighter or looser by a voxel or two."""
    steps = int(rng.integers(0, 3))
    mask = ndimage.binary_dilation(brain, iterations=steps) if steps else brain
    return np.asarray(mask, dtype=np.float32)


def _field_of_view(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
    """A window that loses a few voxels at random, and now and then up to a quarter, at each face."""
    share = 0.25 if rng.random() < FREQUENCIES["Cropped"] else 0.03
    window = []
    for n in shape:
        low, high = (int(rng.uniform(0, share / 2) * n) for _ in range(2))
        window.append(slice(low, n - high))
    return tuple(window)
