"""Scans in and out of the distribution that a model is meant for, which its detector is fitted to.

Both are made of the sources of training and go through the same alterations, so that they differ in contrast
and field of view, not in whose head is shown. The alterations are milder than in training, where a model
learns from scans more unusual than any that a hospital makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.simulation.protocols import TISSUES, Protocol, draw_protocol, vary_tissues
from bids_harmonize.training.alterations.tone import blend, piecewise_linear_map
from bids_harmonize.training.pairs import Pair, draw_pair
from bids_harmonize.training.recipe import SCANNER, WITHOUT_BRAIN, Recipe
from bids_harmonize.training.sources import ReferenceExample, SimulatedHead, Source

# What model cards call scans in distribution.
FAMILIAR = "familiar"
# In-distribution scans are altered either as scanners do, or mildly by every family. The scale is not varied:
# a scan that is harmonized is divided by its own bright value, and so are these.
BY_SCANNERS = Recipe(
    frequencies={**SCANNER, "SurroundingGain": 0.3, "Apodization": 0.35},
    unaltered=0.1,
    mild=0.0,
    scale_jitter=0.0,
)
MILD = Recipe(unaltered=0.0, mild=1.0, mild_strength=0.4, scale_jitter=0.0)
# Recipes for scans with a brain and for scans without one.
RECIPES = {True: (BY_SCANNERS, MILD), False: (replace(MILD, frequencies=WITHOUT_BRAIN),)}
# Share of the scans in distribution whose source is shown as by another protocol; the others keep theirs.
OTHER_PROTOCOL = 0.7
# The brain's tissues from dark to bright, in each modality.
TISSUE_ORDER = {"T1w": ("csf", "grey matter", "white matter"), "T2w": ("white matter", "grey matter", "csf")}
# In distribution, neighbours in that order differ by this factor at least; out of it, two are reversed.
MIN_RATIO = 1.06
# Maximum repetition time of a proton-density scan, ms: with longer ones it hardly differs from a T2w scan.
MAX_PD_TR = {"T1w": 6000.0, "T2w": 3500.0}
# Inversion times (ms) at which fluid or fat vanishes, at 3 T and at 1.5 T.
FLUID_NULLED, FAT_NULLED = (2400.0, 2050.0), (210.0, 165.0)
# Maximum signal of fluid in FLAIR, as a share of white matter's.
MAX_FLUID = 0.6
# Mean and standard deviation among people, in Hounsfield units.
HOUNSFIELD = {
    "white matter": (28, 3),
    "grey matter": (38, 3),
    "deep grey matter": (37, 3),
    "csf": (8, 4),
    "blood": (45, 5),
    "muscle": (55, 8),
    "mucosa": (30, 10),
    "fat": (-90, 10),
    "marrow": (350, 100),
    "bone": (1200, 250),
}
# Lowest and highest value shown: everything, soft tissue, brain.
WINDOWS = ((-1024, 3071), (-160, 240), (-20, 100), (0, 80))
# How scans are stored and of whom they are, in and out of distribution alike: the range of head sizes, from
# children of two years to large adults; and how often, and to what quantile of the foreground, the brightest
# voxels are clipped; how often, and of how many voxels, slices are thick.
HEAD_SIZES = (0.82, 1.12)
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


def sample_in_distribution(
    sources: Sequence[Source], modality: str, rng: np.random.Generator
) -> LabelledScan:
    """Draw a scan that a model of `modality` is meant for."""
    source = _draw_source(sources, rng)
    brain = has_tissues(source)
    if brain and (isinstance(source, SimulatedHead) or rng.random() < OTHER_PROTOCOL):
        source = _example(_shown(source, _contrast_in_distribution(modality, rng), rng), source)
    return _labelled(FAMILIAR, _altered(source, brain, rng))


def sample_ood(sources: Sequence[Source], modality: str, rng: np.random.Generator) -> LabelledScan:
    """Draw a scan that no model of `modality` is meant for."""
    source = _draw_source(sources, rng)
    kinds = ood_classes(source, modality)
    weights = np.array([OOD_CLASSES[kind] for kind in kinds])
    return make_ood(source, kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))], modality, rng)


def make_ood(source: Source, kind: str, modality: str, rng: np.random.Generator) -> LabelledScan:
    """Make a scan of a kind, one of `ood_classes`, from a source."""
    brain = has_tissues(source)
    if kind in VIEWS:
        pair = _altered(source, brain, rng)
        view = VIEWS[kind](pair.augmented, rng)
        return LabelledScan(kind=kind, volume=view / np.float32(intensity_scale(view)), zooms=pair.zooms)
    if kind in OBJECTS:
        example = OBJECTS[kind](rng)
    elif kind == "inverted":
        example = _inverted(source, rng)
    else:
        signals = CONTRASTS[kind](modality, rng)
        example = _example(_shown(source, signals, rng), source)
    return _labelled(kind, _altered(example, brain, rng))


def of_another_person(scan: LabelledScan, rng: np.random.Generator) -> LabelledScan:
    """The scan with a head of another size, and as some scanners store it: clipped, or of thick slices.

    Scans in and out of distribution are treated alike, so that this says nothing of where they belong.
    """
    size = float(np.exp(rng.uniform(*np.log(HEAD_SIZES))))
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


def ood_classes(source: Source, modality: str) -> list[str]:
    """The kinds of scans out of distribution that can be made from a source."""
    kinds = ["inverted", *OBJECTS, *VIEWS]
    if has_tissues(source):
        # STIR looks like a T2w scan with fat suppression, which is in distribution.
        kinds += [kind for kind in CONTRASTS if (kind, modality) != ("STIR", "T2w")]
    return kinds


def has_tissues(source: Source) -> bool:
    """Whether it is known what the source would look like under another protocol."""
    return isinstance(source, SimulatedHead) or (
        isinstance(source, ReferenceExample) and source.tissues is not None
    )


def _altered(source: Source, brain: bool, rng: np.random.Generator) -> Pair:
    recipes = RECIPES[brain]
    return draw_pair([source], rng, recipes[int(rng.integers(len(recipes)))])


def _draw_source(sources: Sequence[Source], rng: np.random.Generator) -> Source:
    """A reference scan or, as often, a simulated head, where there are both."""
    simulated = [source for source in sources if isinstance(source, SimulatedHead)]
    real = [source for source in sources if not isinstance(source, SimulatedHead)]
    pool = simulated if simulated and (not real or rng.random() < 0.5) else real
    return pool[int(rng.integers(len(pool)))]


def _example(volume: Volume, like: Source) -> ReferenceExample:
    return ReferenceExample(volume=volume, zooms=like.zooms, region=like.region, inside=like.inside)


# --- Contrasts: the signals of all tissues ----------------------------------------------------------------

Signals = Mapping[str, float]


def _contrast_in_distribution(modality: str, rng: np.random.Generator) -> Signals:
    """Signals of a protocol that shows the brain's tissues in the order of the modality."""
    while True:
        signals = draw_protocol(modality, rng).signals(vary_tissues(rng))
        if min(_steps(signals, modality)) > MIN_RATIO:
            return signals


def _steps(signals: Signals, modality: str) -> tuple[float, float]:
    """Ratios of neighbours in the order of the modality."""
    low, middle, high = (signals[name] for name in TISSUE_ORDER[modality])
    return middle / low, high / middle


def _reversed(
    draw: Callable[[str, np.random.Generator], Signals],
) -> Callable[[str, np.random.Generator], Signals]:
    """Draw until two of the brain's tissues are in the reverse of the modality's order."""

    def drawn(modality: str, rng: np.random.Generator) -> Signals:
        while True:
            signals = draw(modality, rng)
            if min(_steps(signals, modality)) < 1 / MIN_RATIO:
                return signals

    return drawn


def _flair(modality: str, rng: np.random.Generator) -> Signals:
    while True:
        field, ti = _inversion(FLUID_NULLED, rng)
        tr, te = rng.uniform(7000, 11000), rng.uniform(80, 150)
        protocol = Protocol(field_strength=field, sequence="inversion recovery", tr=tr, te=te, ti=ti)
        signals = protocol.signals(vary_tissues(rng))
        # A FLAIR protocol is set up so that fluid is dark.
        if signals["csf"] < MAX_FLUID * signals["white matter"]:
            return signals


def _stir(modality: str, rng: np.random.Generator) -> Signals:
    field, ti = _inversion(FAT_NULLED, rng)
    tr, te = rng.uniform(3000, 7000), rng.uniform(20, 80)
    protocol = Protocol(field_strength=field, sequence="inversion recovery", tr=tr, te=te, ti=ti)
    return protocol.signals(vary_tissues(rng))


def _inversion(nulling: tuple[float, float], rng: np.random.Generator) -> tuple[float, float]:
    """Field strength and inversion time."""
    weak = bool(rng.random() < 0.5)
    return (1.5 if weak else 3.0), nulling[weak] * float(rng.uniform(0.93, 1.07))


def _proton_density(modality: str, rng: np.random.Generator) -> Signals:
    tr, te = rng.uniform(2000, MAX_PD_TR[modality]), rng.uniform(8, 25)
    field = float(rng.choice([1.5, 3.0]))
    return Protocol(field_strength=field, sequence="spin echo", tr=tr, te=te).signals(vary_tissues(rng))


def _other_weighting(modality: str, rng: np.random.Generator) -> Signals:
    return draw_protocol("T2w" if modality == "T1w" else "T1w", rng).signals(vary_tissues(rng))


def _any_contrast(modality: str, rng: np.random.Generator) -> Signals:
    signals = {name: float(rng.uniform(0.05, 1)) for name in TISSUES} | {"bone": 0.05, "air": 0.0}
    share = rng.uniform(0.2, 0.8)
    deep = share * signals["grey matter"] + (1 - share) * signals["white matter"]
    return signals | {"deep grey matter": deep}


def _computed_tomography(modality: str, rng: np.random.Generator) -> Signals:
    low, high = WINDOWS[int(rng.integers(len(WINDOWS)))]
    drawn = {name: rng.normal(mean, deviation) for name, (mean, deviation) in HOUNSFIELD.items()}
    return {name: float(np.clip(value, low, high) - low) for name, value in drawn.items()}


CONTRASTS: Mapping[str, Callable[[str, np.random.Generator], Signals]] = {
    "FLAIR": _reversed(_flair),
    "PD": _reversed(_proton_density),
    "STIR": _reversed(_stir),
    "CT": _computed_tomography,
    "other weighting": _reversed(_other_weighting),
    "any contrast": _reversed(_any_contrast),
}


def _shown(source: Source, signals: Signals, rng: np.random.Generator) -> Volume:
    """The source's anatomy as tissues with these signals show it."""
    if isinstance(source, SimulatedHead):
        return source.head.person(rng).render(signals)
    assert isinstance(source, ReferenceExample) and source.tissues is not None
    inner, outer = (piecewise_linear_map(source.volume, known, signals) for known in source.tissues)
    shown = blend(inner, outer, source.inside)
    # In MR images bone is as dark as air, so the curves know no intensity of its own.
    if signals["bone"] > signals["muscle"]:
        shown[_skull(source.volume) & ~source.region] = signals["bone"]
    return np.asarray(shown, dtype=np.float32)


def _skull(volume: Volume) -> Mask:
    """Voxels that are dark within the head."""
    bright = volume > DARK * intensity_scale(volume)
    return np.asarray(_head(volume) & ~bright, dtype=bool)


def _head(volume: Volume) -> Mask:
    closed = ndimage.binary_closing(volume > DARK * intensity_scale(volume), iterations=3)
    return np.asarray(ndimage.binary_fill_holes(closed), dtype=bool)


def _inverted(source: Source, rng: np.random.Generator) -> ReferenceExample:
    """Dark where it was bright, inside the head or everywhere."""
    volume = source.contrast(BY_SCANNERS, rng, 1.0)[0]
    turned = np.maximum(intensity_scale(volume) * np.float32(rng.uniform(1, 1.2)) - volume, 0)
    return _example(turned if rng.random() < 0.4 else turned * _head(volume), source)


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


# Relative frequency of each kind, where it can be made.
OOD_CLASSES: Mapping[str, float] = {
    "FLAIR": 2.5,
    "PD": 2.0,
    "STIR": 0.7,
    "CT": 2.0,
    "other weighting": 2.0,
    "any contrast": 1.2,
    "inverted": 2.0,
    "phantom": 0.7,
    "noise": 0.2,
    "box": 0.5,
    "slab": 0.3,
}
