"""Pairs of altered and original scan: what the network learns from.

A source is a reference scan or a simulated head. It gives the same anatomy in another contrast and in that of
the reference group; the alterations of `kspace` and what a scanner adds to any image follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from bids_harmonize.acquisition import TISSUES, draw_protocol, vary_tissues
from bids_harmonize.anatomy import Mask, Volume
from bids_harmonize.contrast import SurroundingGain, ToneCurve
from bids_harmonize.heads import Head
from bids_harmonize.image import intensity_scale
from bids_harmonize.kspace import (
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
from bids_harmonize.reference import ReferenceScan

K_SPACE = {
    "RadialGain": 0.35,
    "CentrePerturbation": 0.35,
    "MagnitudePower": 0.35,
    "LowBandToneMapped": 0.25,
    "LowBandOtherScan": 0.08,
    "Apodization": 0.35,
}
TONES = {"ToneCurve": 0.35, "LocalToneCurves": 0.3, "SurroundingGain": 0.5}
SCANNER = {"SmoothField": 0.6, "Noise": 0.5, "SkullStripped": 0.2, "Cropped": 0.3}
# Contrast by the signal equations: of reference scans, tissue by tissue.
ACQUISITION = {"Acquisition": 0.45}
# Where there is no brain, there is nothing to strip, no tissue that is known, and all else is common.
WITHOUT_BRAIN = {"ToneCurve": 0.7, "LocalToneCurves": 0.5, **K_SPACE, **SCANNER, "SkullStripped": 0.0}
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
# The bright value that scales a scan may be set by fat in one protocol and by white matter in another.
SCALE_JITTER = 0.1
WORKING_MM = 2.0
# Scans of one protocol differ by less, if at all.
SAME_VOXELS_MM = 0.05
# What is darker than this, in units of white matter, is taken for air.
AIR = 0.15
# What a simulated head looks like outside the brain is less certain than what a scan does.
SIMULATED_SURROUNDINGS = 0.15
# Of the brain's voxels; around a skull-stripped brain there are fewer.
LEAST_SURROUNDINGS = 0.05


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How often each family alters a scan.

    Attributes
    ----------
    frequencies
        Probability of each family.
    unaltered, mild
        Shares of pairs that are not altered, or at `mild_strength`. Without them the network does not leave
        a reference scan alone.
    simulated
        Share of pairs made of simulated heads, where there are any.
    """

    frequencies: Mapping[str, float] = field(
        default_factory=lambda: {**TONES, **ACQUISITION, **K_SPACE, **SCANNER}
    )
    unaltered: float = 0.2
    mild: float = 0.15
    mild_strength: float = 0.3
    simulated: float = 0.35
    scale_jitter: float = SCALE_JITTER

    def happens(self, family: str, rng: np.random.Generator) -> bool:
        """Whether a family is drawn."""
        return bool(rng.random() < self.frequencies.get(family, 0.0))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Altered scan, scaled to a bright value of about 1, and the original in units of white matter.

    `surroundings` and `air` are the weights of what lies outside `region`.
    """

    altered: Volume
    original: Volume
    region: Mask
    zooms: tuple[float, float, float]
    surroundings: float = 0.5
    air: float = 0.5


class Source(Interface):
    """A scan or head that pairs are drawn from; `inside` is 1 in the region, 0 outside, soft between."""

    @property
    def zooms(self) -> tuple[float, float, float]: ...

    @property
    def region(self) -> Mask: ...

    @property
    def inside(self) -> Volume: ...

    @property
    def surroundings(self) -> float: ...

    @property
    def air(self) -> float: ...

    def contrast(self, recipe: Recipe, rng: np.random.Generator, strength: float) -> tuple[Volume, Volume]:
        """The image in another contrast, and in that of the reference group."""
        ...


@dataclass(frozen=True, kw_only=True)
class Example:
    """A reference scan on a grid small enough to train on, in units of its own level.

    `tissues` are the intensities of tissues inside the region and outside it, where a skull-stripped scan has
    none; None where the region is not a brain.
    """

    volume: Volume
    zooms: tuple[float, float, float]
    region: Mask
    inside: Volume
    modality: str = "T1w"
    tissues: tuple[dict[str, float], dict[str, float]] | None = None
    surroundings: float = 0.5
    air: float = 0.5

    def contrast(self, recipe: Recipe, rng: np.random.Generator, strength: float) -> tuple[Volume, Volume]:
        """Tone curves at random, or those that the signal equations of a protocol ask for."""
        if strength == 0:
            return self.volume, self.volume
        volume = self.volume
        if self.tissues is not None and recipe.happens("Acquisition", rng):
            volume = self._acquired(self.tissues, rng, strength)
        volume = volume / np.float32(intensity_scale(volume))
        if recipe.happens("ToneCurve", rng):
            volume = ToneCurve.sample(rng, strength).apply(volume)
        if recipe.happens("LocalToneCurves", rng):
            volume = _local_tone(volume, rng, strength)
        if recipe.happens("SurroundingGain", rng):
            volume = SurroundingGain.sample(rng, strength).apply(volume, self.inside)
        return volume, self.volume

    def _acquired(
        self, tissues: tuple[dict[str, float], dict[str, float]], rng: np.random.Generator, strength: float
    ) -> Volume:
        """The scan as another protocol would show it: one curve through its tissues inside, one outside."""
        signals = draw_protocol(self.modality, rng).signals(vary_tissues(rng))
        scale = 1 / signals["white matter"]
        inner, outer = (
            _through(self.volume, known, {name: scale * signals[name] for name in known})
            for known in (tissues[0], tissues[1] or tissues[0])
        )
        new = outer + self.inside * (inner - outer)
        return new if strength == 1 else self.volume + np.float32(strength) * (new - self.volume)


@dataclass(frozen=True, kw_only=True)
class SimulatedHead:
    """A head of known tissues, and what they look like in the reference group."""

    head: Head
    inside: Volume
    modality: str
    reference: Mapping[str, float]
    surroundings: float = SIMULATED_SURROUNDINGS
    air: float = 0.0

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel size, mm."""
        return self.head.zooms

    @property
    def region(self) -> Mask:
        """The brain."""
        return self.head.brain

    def contrast(self, recipe: Recipe, rng: np.random.Generator, strength: float) -> tuple[Volume, Volume]:
        """A protocol at random, whatever the strength, and the reference group's."""
        person = self.head.person(rng)
        signals = draw_protocol(self.modality, rng).signals(vary_tissues(rng))
        return person.render(signals), person.render(self.reference)


def examples(scan: ReferenceScan, modality: str = "T1w", *, brain: bool = True) -> list[Example]:
    """Two versions of a scan: averaged to 2 mm, and every so-many-th voxel as it was measured.

    The latter keeps the noise and the sharp histograms of the full resolution.
    """
    volume = scan.volume / np.float32(scan.level)
    steps = [max(1, round(WORKING_MM / zoom)) for zoom in scan.zooms]
    every = tuple(slice(None, None, step) for step in steps)
    x, y, z = (zoom * step for zoom, step in zip(scan.zooms, steps, strict=True))
    versions = [
        _averaged(volume, scan.region, scan.zooms),
        _example(volume[every], (x, y, z), scan.region[every]),
    ]
    tissues = tissue_levels(versions[0], modality) if brain else None
    return [replace(version, modality=modality, tissues=tissues) for version in versions]


def simulated_heads(heads: Sequence[Head], group: Sequence[Example], modality: str) -> list[SimulatedHead]:
    """Heads whose tissues look as in the reference group.

    The classes that k-means finds in a simulated brain are those that it finds in the group's brains: what
    partial volume does to both is the same. If all of the group are skull-stripped, what surrounds the brain
    does not count.
    """
    if not heads:
        return []
    found = [example.tissues for example in group if example.tissues is not None]
    inner, outer = (_typical([tissues[side] for tissues in found]) for side in (0, 1))
    reference = _outside_signals(outer) | inner | {"deep grey matter": 0.0}
    people = [head.person(np.random.default_rng(index)) for index, head in enumerate(heads)]
    for _ in range(4):
        share = 0.4 if modality == "T1w" else 0.5
        reference["deep grey matter"] = (1 - share) * reference["grey matter"] + share * reference[
            "white matter"
        ]
        rendered = [_example(p.render(reference), p.head.zooms, p.head.brain) for p in people]
        classes = [tissue_levels(example, modality)[0] for example in rendered]
        for name, aim in inner.items():
            reference[name] *= aim / float(np.median([levels[name] for levels in classes]))
    return [
        SimulatedHead(
            head=head,
            inside=_soft(head.brain, head.zooms),
            modality=modality,
            reference=reference,
            surroundings=SIMULATED_SURROUNDINGS if outer else 0.0,
        )
        for head in heads
    ]


def tissue_levels(example: Example, modality: str) -> tuple[dict[str, float], dict[str, float]]:
    """Intensities of the brain's tissues, by k-means, and of muscle and fat around it.

    Parameters
    ----------
    modality
        T1w, in which white matter is the brightest of the brain's tissues, or T2w, in which it is the
        darkest.
    """
    values = example.volume[example.region]
    names = ["csf", "grey matter", "white matter"]
    inside = _classes(values, 3)
    # Sulci are mostly partial volume; the ventricles are the darkest, or the brightest, of a brain.
    inside[0 if modality == "T1w" else 2] = float(np.percentile(values, 2 if modality == "T1w" else 98))
    inner = dict(zip(names if modality == "T1w" else names[::-1], inside, strict=True))
    around = example.volume[(example.volume > AIR) & (example.inside < 0.02)]
    if around.size < LEAST_SURROUNDINGS * values.size:
        return inner, {}
    # Of what surrounds the brain, most is muscle or mixed with it; little is nothing but fat.
    outside = np.percentile(around, [35, 93])
    return inner, dict(zip(("muscle", "fat"), outside.tolist(), strict=True))


def draw_pair(sources: Sequence[Source], rng: np.random.Generator, recipe: Recipe | None = None) -> Pair:
    """Alter one source at random."""
    return draw_batch(sources, rng, 1, recipe)[0]


def draw_batch(
    sources: Sequence[Source], rng: np.random.Generator, size: int, recipe: Recipe | None = None
) -> list[Pair]:
    """Alter `size` sources at random; all of one grid, so that the network needs no filling."""
    recipe = recipe or Recipe()
    simulated = [source for source in sources if isinstance(source, SimulatedHead)]
    real = [source for source in sources if not isinstance(source, SimulatedHead)]
    share = recipe.simulated if simulated else 0.0
    pool = simulated if not real or rng.random() < share else real
    first = pool[int(rng.integers(len(pool)))]
    alike = [source for source in pool if np.allclose(source.zooms, first.zooms, atol=SAME_VOXELS_MM)]
    shape = tuple(np.min([source.region.shape for source in alike], axis=0))
    extent = _field_of_view(shape, recipe, rng)
    return [_draw(alike, extent, recipe, rng) for _ in range(size)]


def _draw(alike: Sequence[Source], extent: Sequence[int], recipe: Recipe, rng: np.random.Generator) -> Pair:
    source, other = (alike[int(index)] for index in rng.integers(len(alike), size=2))
    kind = rng.random()
    mild = recipe.unaltered <= kind < recipe.unaltered + recipe.mild
    strength = 0.0 if kind < recipe.unaltered else recipe.mild_strength if mild else 1.0
    altered, original = source.contrast(recipe, rng, strength)
    if strength > 0:
        altered = alter(altered, source, other, rng, strength, recipe)
    stripped = recipe.happens("SkullStripped", rng)
    if stripped:
        altered = altered * _loose(source.region, rng)
    window = _window(altered.shape, extent, rng)
    altered, original = (np.ascontiguousarray(volume[window]) for volume in (altered, original))
    region = np.ascontiguousarray(source.region[window])
    jitter = np.exp(rng.normal(0, recipe.scale_jitter))
    scaled = altered * np.float32(jitter / intensity_scale(altered))
    if stripped:
        original = original * (scaled > 0)
    return Pair(
        altered=scaled,
        original=original,
        region=region,
        zooms=source.zooms,
        surroundings=source.surroundings,
        air=source.air,
    )


def alter(
    volume: Volume,
    source: Source,
    other: Source,
    rng: np.random.Generator,
    strength: float,
    recipe: Recipe,
) -> Volume:
    """What happens to an image of any contrast: k-space, receive field, noise."""
    scaled = volume / np.float32(intensity_scale(volume))
    k_space = _alter_k_space(scaled, source, other, rng, strength, recipe)
    altered = scaled if k_space is None else k_space.volume()
    if recipe.happens("SmoothField", rng):
        altered = SmoothField.sample(rng, strength).apply_to_image(altered)
    if recipe.happens("Noise", rng):
        altered = Noise.sample(rng, strength).apply_to_image(altered)
    return altered


def _alter_k_space(
    volume: Volume, source: Source, other: Source, rng: np.random.Generator, strength: float, recipe: Recipe
) -> KSpace | None:
    """The altered spectrum; None if no family was drawn."""
    changes: list[Callable[[KSpace], KSpace]] = []
    if recipe.happens("LowBandToneMapped", rng):
        copy = KSpace.of(ToneCurve.sample(rng, strength).apply(volume), source.zooms)
        low_band = LowBand.sample(rng)
        changes.append(lambda k_space: low_band.apply(k_space, copy))
    if (
        recipe.happens("LowBandOtherScan", rng)
        and isinstance(other, Example)
        and other.volume.shape == volume.shape
    ):
        # Wider, another head's anatomy would come along with its contrast.
        narrow = LowBand.sample(rng, largest_cutoff=0.03)
        foreign = KSpace.of(other.volume / np.float32(intensity_scale(other.volume)), other.zooms)
        changes.append(lambda k_space: narrow.apply(k_space, foreign))
    families: tuple[type[Alteration], ...] = (
        RadialGain,
        CentrePerturbation,
        MagnitudePower,
        Apodization,
        Spikes,
        PhaseError,
    )
    changes += [
        family.sample(rng, strength).apply for family in families if recipe.happens(family.__name__, rng)
    ]
    if not changes:
        return None
    k_space = KSpace.of(volume, source.zooms)
    for change in changes:
        k_space = change(k_space)
    return k_space


def _through(volume: Volume, known: Mapping[str, float], wanted: Mapping[str, float]) -> Volume:
    """A rising curve that brings every tissue from what it is to what is wanted."""
    names = sorted(known, key=lambda name: known[name])
    values = np.maximum.accumulate([wanted[name] for name in names])
    # Tissues that a protocol does not tell apart stay distinguishable, if hardly.
    values = values + 0.02 * values[-1] * np.arange(len(names))
    knots = np.array([0.0, *(known[name] for name in names)])
    curve = np.array([0.0, *values])
    mapped = np.interp(volume, knots, curve).astype(np.float32)
    beyond = volume > knots[-1]
    mapped[beyond] += (volume[beyond] - np.float32(knots[-1])) * np.float32(curve[-1] / knots[-1])
    return mapped


def _classes(values: Volume, count: int) -> list[float]:
    """Medians of classes of intensities, rising."""
    low, high = np.percentile(values, [2, 99])
    kept = values[(values >= low) & (values <= high)][:: max(1, values.size // 50_000)].astype(np.float64)
    start = np.quantile(kept, (np.arange(count) + 0.5) / count)
    _, classes = kmeans2(kept[:, None], start[:, None], minit="matrix", iter=30)
    return sorted(float(np.median(kept[classes == k])) for k in range(count) if np.any(classes == k))


def _typical(levels: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians, over the scans in which there is something to be seen."""
    known = [one for one in levels if one]
    return {name: float(np.median([one[name] for one in known])) for name in (known[0] if known else ())}


def _outside_signals(outer: Mapping[str, float]) -> dict[str, float]:
    """What tissues outside the brain look like, from the two classes that are seen there."""
    muscle, fat = outer.get("muscle", 0.0), outer.get("fat", 0.0)
    mixed = {"mucosa": 1.2 * muscle, "blood": muscle, "marrow": 0.6 * fat, "bone": 0.2 * muscle}
    return {**dict.fromkeys(TISSUES, 0.0), **outer, **mixed}


def _averaged(volume: Volume, region: Mask, zooms: tuple[float, float, float]) -> Example:
    factors = [min(1.0, zoom / WORKING_MM) for zoom in zooms]
    smooth = ndimage.gaussian_filter(volume, [0.4 * (1 / f - 1) for f in factors])
    small = ndimage.zoom(smooth, factors, order=1, mode="nearest", grid_mode=True)
    mask = ndimage.zoom(region.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True) > 0.5
    x, y, z = (zoom * n / m for zoom, n, m in zip(zooms, volume.shape, small.shape, strict=True))
    return _example(small, (x, y, z), mask)


def _example(volume: Volume, zooms: tuple[float, float, float], region: Mask) -> Example:
    return Example(
        volume=np.ascontiguousarray(volume),
        zooms=zooms,
        region=np.ascontiguousarray(region),
        inside=_soft(region, zooms),
    )


def _soft(region: Mask, zooms: Sequence[float]) -> Volume:
    soft = ndimage.gaussian_filter(region.astype(np.float32), [2.0 / zoom for zoom in zooms])
    return np.asarray(soft, dtype=np.float32)


def _local_tone(volume: Volume, rng: np.random.Generator, strength: float) -> Volume:
    """Two tone curves, blended by a smooth field: contrast that differs from place to place."""
    first, second = (ToneCurve.sample(rng, strength).apply(volume) for _ in range(2))
    field = np.log(SmoothField.sample(rng, 6.0).field(volume.shape))
    share = 1 / (1 + np.exp(-2 * field))
    return first + share * (second - first)


def _loose(region: Mask, rng: np.random.Generator) -> NDArray[np.float32]:
    """A skull-stripping mask, tighter or looser by a voxel or two."""
    steps = int(rng.integers(0, 3))
    mask = ndimage.binary_dilation(region, iterations=steps) if steps else region
    return np.asarray(mask, dtype=np.float32)


def _field_of_view(shape: Sequence[int], recipe: Recipe, rng: np.random.Generator) -> list[int]:
    """Voxels along each axis: a few fewer than there are, and now and then up to a quarter."""
    share = 0.25 if recipe.happens("Cropped", rng) else 0.03
    return [n - int(rng.uniform(0, share) * n) for n in shape]


def _window(shape: Sequence[int], extent: Sequence[int], rng: np.random.Generator) -> tuple[slice, ...]:
    """Somewhere in the volume, left and right exchanged in half of the cases."""
    starts = [int(rng.integers(n - m + 1)) for n, m in zip(shape, extent, strict=True)]
    first, *rest = (slice(start, start + m) for start, m in zip(starts, extent, strict=True))
    if rng.random() < 0.5:
        first = slice(first.stop - 1, first.start - 1 if first.start else None, -1)
    return (first, *rest)
