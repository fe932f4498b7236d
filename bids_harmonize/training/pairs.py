"""Pairs of an altered and an original scan, which the network learns from.

A source is a reference scan or a simulated head. It gives the same anatomy in another contrast and in that of
the reference group; the alterations of `kspace` and what a scanner adds to any image follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.imaging.foreground import Box, Foreground
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.model.bilateral_grid import Cells
from bids_harmonize.training.alterations.kspace import (
    Alteration,
    Apodization,
    CentrePerturbation,
    KSpace,
    LowBand,
    MagnitudePower,
    Noise,
    PhaseError,
    RadialGain,
    SmoothField,
    Spikes,
)
from bids_harmonize.training.alterations.tone import SurroundingGain, ToneCurve
from bids_harmonize.training.recipe import Recipe
from bids_harmonize.training.sources import ReferenceExample, SimulatedHead, Source

FAMILIES = (
    ToneCurve,
    SurroundingGain,
    RadialGain,
    CentrePerturbation,
    MagnitudePower,
    LowBand,
    Apodization,
    Spikes,
    PhaseError,
    SmoothField,
    Noise,
)
# Voxel sizes that differ by less are those of one protocol.
SAME_VOXELS_MM = 0.05


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Altered scan, scaled to a bright value of about 1, and the original in units of white matter.

    Attributes
    ----------
    region
        The anatomy that counts, the brain in a head; the loss gives it the weight 1.
    box
        The foreground of the altered scan.
    surroundings, air
        Weights of what lies outside.
    """

    augmented: Volume
    target: Volume
    region: Mask
    zooms: tuple[float, float, float]
    box: Box
    surroundings: float = 0.5
    air: float = 0.5

    @property
    def cells(self) -> Cells:
        """The cells that the altered scan is divided into, as when it is harmonized."""
        return Cells.of_box(self.box, self.augmented.shape, self.zooms)

    def with_augmented(self, volume: Volume, scale_jitter: float = 1.0) -> Pair:
        """The pair with another altered scan of the same anatomy, in any unit."""
        foreground = Foreground.of(volume, self.zooms)
        scaled = volume * np.float32(scale_jitter / foreground.scale)
        return replace(self, augmented=scaled, box=foreground.box)


def draw_pair(sources: Sequence[Source], rng: np.random.Generator, recipe: Recipe | None = None) -> Pair:
    """Draw a source and alter it."""
    return draw_batch(sources, rng, 1, recipe)[0]


def draw_batch(
    sources: Sequence[Source], rng: np.random.Generator, size: int, recipe: Recipe | None = None
) -> list[Pair]:
    """Draw a source and a field of view, and alter it `size` times; all grids are of one size."""
    recipe = recipe or Recipe()
    simulated = [source for source in sources if isinstance(source, SimulatedHead)]
    real = [source for source in sources if not isinstance(source, SimulatedHead)]
    share = recipe.simulated if simulated else 0.0
    pool = simulated if not real or rng.random() < share else real
    source = pool[int(rng.integers(len(pool)))]
    same_grid = [other for other in pool if np.allclose(other.zooms, source.zooms, atol=SAME_VOXELS_MM)]
    extent = _field_of_view(source.region.shape, recipe, rng)
    window = _random_crop_and_flip(source.region.shape, extent, rng)
    stretch = np.exp(rng.uniform(-1, 1, 3) * np.log1p(recipe.size_spread))
    x, y, z = (float(zoom * factor) for zoom, factor in zip(source.zooms, stretch, strict=True))
    pairs = [_draw(source, same_grid, window, recipe, rng, (x, y, z)) for _ in range(size)]
    return with_boxes_alike(pairs)


def with_boxes_alike(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs with boxes of one size: they go through the network together, which halves the time."""
    largest = np.max([pair.box.shape for pair in pairs], axis=0).tolist()
    return [replace(pair, box=pair.box.enlarged(largest)) for pair in pairs]


def _draw(
    source: Source,
    same_grid: Sequence[Source],
    window: tuple[slice, ...],
    recipe: Recipe,
    rng: np.random.Generator,
    zooms: tuple[float, float, float],
) -> Pair:
    """Alter a source whose voxels are taken to be of another size."""
    other = same_grid[int(rng.integers(len(same_grid)))]
    kind = rng.random()
    mild = recipe.unaltered <= kind < recipe.unaltered + recipe.mild
    strength = 0.0 if kind < recipe.unaltered else recipe.mild_strength if mild else 1.0
    augmented, target = source.contrast(recipe, rng, strength)
    if strength > 0:
        augmented = alter(augmented, source, other, rng, strength, recipe)
    stripped = recipe.is_drawn("SkullStripped", rng)
    if stripped:
        augmented = augmented * _jittered_brain_mask(source.region, rng)
    augmented, target = (np.ascontiguousarray(volume[window]) for volume in (augmented, target))
    region = np.ascontiguousarray(source.region[window])
    jitter = np.exp(rng.normal(0, recipe.scale_jitter))
    if stripped:
        target = target * (augmented > 0)
    pair = Pair(
        augmented=augmented,
        target=target,
        region=region,
        zooms=zooms,
        box=Box.whole(augmented.shape),
        surroundings=source.surroundings,
        air=source.air,
    )
    return pair.with_augmented(augmented, float(jitter))


def alter(
    volume: Volume,
    source: Source,
    other: Source,
    rng: np.random.Generator,
    strength: float,
    recipe: Recipe,
) -> Volume:
    """Alter an image of any contrast: in k-space, by a receive field, by noise."""
    scaled = volume / np.float32(intensity_scale(volume))
    k_space = _alter_k_space(scaled, source, other, rng, strength, recipe)
    augmented = scaled if k_space is None else k_space.volume()
    if recipe.is_drawn("SmoothField", rng):
        augmented = SmoothField.sample(rng, strength).apply_to_image(augmented)
    if recipe.is_drawn("Noise", rng):
        augmented = Noise.sample(rng, strength).apply_to_image(augmented)
    return augmented


def _alter_k_space(
    volume: Volume, source: Source, other: Source, rng: np.random.Generator, strength: float, recipe: Recipe
) -> KSpace | None:
    """The altered spectrum; None if no family was drawn."""
    changes: list[Callable[[KSpace], KSpace]] = []
    if recipe.is_drawn("LowBandToneMapped", rng):
        copy = KSpace.of(ToneCurve.sample(rng, strength).apply(volume), source.zooms)
        low_band = LowBand.sample(rng)
        changes.append(lambda k_space: low_band.apply(k_space, copy))
    if (
        recipe.is_drawn("LowBandOtherScan", rng)
        and isinstance(other, ReferenceExample)
        and other.volume.shape == volume.shape
    ):
        # A wider band would bring the other head's anatomy along with its contrast.
        narrow = LowBand.sample(rng, largest_cutoff=0.03)
        other_scan = KSpace.of(other.volume / np.float32(intensity_scale(other.volume)), other.zooms)
        changes.append(lambda k_space: narrow.apply(k_space, other_scan))
    families: tuple[type[Alteration], ...] = (
        RadialGain,
        CentrePerturbation,
        MagnitudePower,
        Apodization,
        Spikes,
        PhaseError,
    )
    changes += [
        family.sample(rng, strength).apply for family in families if recipe.is_drawn(family.__name__, rng)
    ]
    if not changes:
        return None
    k_space = KSpace.of(volume, source.zooms)
    for change in changes:
        k_space = change(k_space)
    return k_space


def _jittered_brain_mask(region: Mask, rng: np.random.Generator) -> NDArray[np.float32]:
    """A skull-stripping mask, tighter or looser by a voxel or two."""
    steps = int(rng.integers(0, 3))
    mask = ndimage.binary_dilation(region, iterations=steps) if steps else region
    return np.asarray(mask, dtype=np.float32)


def _field_of_view(shape: Sequence[int], recipe: Recipe, rng: np.random.Generator) -> list[int]:
    """Voxels along each axis: up to 3 % fewer than there are, or up to a quarter if the view is cropped."""
    share = 0.25 if recipe.is_drawn("Cropped", rng) else 0.03
    return [n - int(rng.uniform(0, share) * n) for n in shape]


def _random_crop_and_flip(
    shape: Sequence[int], extent: Sequence[int], rng: np.random.Generator
) -> tuple[slice, ...]:
    """A window at a random place; in half of the cases left and right are exchanged."""
    starts = [int(rng.integers(n - m + 1)) for n, m in zip(shape, extent, strict=True)]
    first, *rest = (slice(start, start + m) for start, m in zip(starts, extent, strict=True))
    if rng.random() < 0.5:
        first = slice(first.stop - 1, first.start - 1 if first.start else None, -1)
    return (first, *rest)
