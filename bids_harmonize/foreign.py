"""Scans that a model is not meant for, and what tells them from those that it is meant for.

Both are made of the sources of training and go through the same alterations, so that contrast and field of
view tell, not whose head it is. The alterations are milder than in training, where a model learns from scans
more unusual than any that a hospital makes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from bids_harmonize.acquisition import TISSUES, Protocol, draw_protocol, vary_tissues
from bids_harmonize.anatomy import Mask, Volume
from bids_harmonize.grid import Cells, splat
from bids_harmonize.image import intensity_scale
from bids_harmonize.pairs import (
    SCANNER,
    WITHOUT_BRAIN,
    Example,
    Pair,
    Recipe,
    SimulatedHead,
    Source,
    draw_pair,
)
from bids_harmonize.recognition import LARGEST, Recognizer, describe

FAMILIAR = "familiar"
# What scanners do, or a little of everything. Scans are scaled by their own bright value when they are
# harmonized, so here too.
BY_SCANNERS = Recipe(
    frequencies={**SCANNER, "SurroundingGain": 0.3, "Apodization": 0.35},
    unaltered=0.1,
    mild=0.0,
    scale_jitter=0.0,
)
MILD = Recipe(unaltered=0.0, mild=1.0, mild_strength=0.4, scale_jitter=0.0)
# Of scans with a brain and without.
RECIPES = {True: (BY_SCANNERS, MILD), False: (replace(MILD, frequencies=WITHOUT_BRAIN),)}
# Share of familiar scans that are made of a source under another protocol; the others are as they are.
OTHER_PROTOCOL = 0.7
# The brain's tissues, rising, as the models know them.
ORDER = {"T1w": ("csf", "grey matter", "white matter"), "T2w": ("white matter", "grey matter", "csf")}
# Neighbours in that order differ by this factor in a familiar contrast; a foreign one reverses two of them.
STEP = 1.06
# Repetition times of proton density, ms: a T2w scan of a long one differs little from it.
LONGEST_TR_OF_PD = {"T1w": 6000.0, "T2w": 3500.0}
# Inversion times (ms) at which fluid or fat vanishes, at 3 T and at 1.5 T.
FLUID_NULLED, FAT_NULLED = (2400.0, 2050.0), (210.0, 165.0)
# What is left of fluid in FLAIR, over white matter, at most.
FLUID_LEFT = 0.6
# Hounsfield units, and the standard deviation among people.
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
# What is darker than this share of the bright value is air, gas or bone.
DARK = 0.12
# Shares of an axis that a cropped view keeps: of two or three axes, or of one.
BOX, SLAB = (0.15, 0.35), (0.06, 0.18)
# What a view shows besides air.
LEAST_FOREGROUND = 0.15
# Objects that are no heads, mm.
EXTENT, VOXEL, RADII = 200.0, 2.0, (30.0, 95.0)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A scan, scaled to a bright value of 1, and what `kind` it is of."""

    kind: str
    volume: Volume
    zooms: tuple[float, float, float]


def draw_familiar(sources: Sequence[Source], modality: str, rng: np.random.Generator) -> Drawn:
    """A scan as a model of `modality` is meant for."""
    source = _draw_source(sources, rng)
    brain = has_tissues(source)
    if brain and (isinstance(source, SimulatedHead) or rng.random() < OTHER_PROTOCOL):
        source = _example(_shown(source, _familiar_contrast(modality, rng), rng), source)
    pair = _altered(source, brain, rng)
    return Drawn(kind=FAMILIAR, volume=pair.altered, zooms=pair.zooms)


def draw_foreign(sources: Sequence[Source], modality: str, rng: np.random.Generator) -> Drawn:
    """A scan that no model of `modality` is meant for."""
    source = _draw_source(sources, rng)
    kinds = kinds_of(source, modality)
    weights = np.array([KINDS[kind] for kind in kinds])
    return make_foreign(source, kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))], modality, rng)


def make_foreign(source: Source, kind: str, modality: str, rng: np.random.Generator) -> Drawn:
    """A scan of a foreign kind, one of `kinds_of` the source."""
    brain = has_tissues(source)
    if kind in VIEWS:
        pair = _altered(source, brain, rng)
        view = VIEWS[kind](pair.altered, rng)
        return Drawn(kind=kind, volume=view / np.float32(intensity_scale(view)), zooms=pair.zooms)
    if kind in OBJECTS:
        example = OBJECTS[kind](rng)
    elif kind == "inverted":
        example = _inverted(source, rng)
    else:
        signals = CONTRASTS[kind](modality, rng)
        example = _example(_shown(source, signals, rng), source)
    pair = _altered(example, brain, rng)
    return Drawn(kind=kind, volume=pair.altered, zooms=pair.zooms)


def kinds_of(source: Source, modality: str) -> list[str]:
    """The foreign kinds that can be made of a source."""
    kinds = ["inverted", *OBJECTS, *VIEWS]
    if has_tissues(source):
        # With fat suppressed, a T2w scan is as STIR shows it.
        kinds += [kind for kind in CONTRASTS if (kind, modality) != ("STIR", "T2w")]
    return kinds


def has_tissues(source: Source) -> bool:
    """Whether it is known what the source would look like under another protocol."""
    return isinstance(source, SimulatedHead) or (isinstance(source, Example) and source.tissues is not None)


def _altered(source: Source, brain: bool, rng: np.random.Generator) -> Pair:
    recipes = RECIPES[brain]
    return draw_pair([source], rng, recipes[int(rng.integers(len(recipes)))])


def _draw_source(sources: Sequence[Source], rng: np.random.Generator) -> Source:
    """A reference scan or, as often, a simulated head, where there are both."""
    simulated = [source for source in sources if isinstance(source, SimulatedHead)]
    real = [source for source in sources if not isinstance(source, SimulatedHead)]
    pool = simulated if simulated and (not real or rng.random() < 0.5) else real
    return pool[int(rng.integers(len(pool)))]


def _example(volume: Volume, like: Source) -> Example:
    return Example(volume=volume, zooms=like.zooms, region=like.region, inside=like.inside)


# --- Foreign contrasts: the signals of all tissues ---------------------------------------------------------

Signals = Mapping[str, float]


def _familiar_contrast(modality: str, rng: np.random.Generator) -> Signals:
    """Of a protocol and person that show the brain's tissues in the order of the modality."""
    while True:
        signals = draw_protocol(modality, rng).signals(vary_tissues(rng))
        if min(_steps(signals, modality)) > STEP:
            return signals


def _steps(signals: Signals, modality: str) -> tuple[float, float]:
    """Ratios of neighbours in the order of the modality."""
    low, middle, high = (signals[name] for name in ORDER[modality])
    return middle / low, high / middle


def _reversed(
    draw: Callable[[str, np.random.Generator], Signals],
) -> Callable[[str, np.random.Generator], Signals]:
    """Draw again until the brain's tissues are not in the order of the modality."""

    def drawn(modality: str, rng: np.random.Generator) -> Signals:
        while True:
            signals = draw(modality, rng)
            if min(_steps(signals, modality)) < 1 / STEP:
                return signals

    return drawn


def _flair(modality: str, rng: np.random.Generator) -> Signals:
    while True:
        field, ti = _inversion(FLUID_NULLED, rng)
        tr, te = rng.uniform(7000, 11000), rng.uniform(80, 150)
        protocol = Protocol(field_strength=field, sequence="inversion recovery", tr=tr, te=te, ti=ti)
        signals = protocol.signals(vary_tissues(rng))
        # Whoever sets up a FLAIR sees to it that fluid is dark.
        if signals["csf"] < FLUID_LEFT * signals["white matter"]:
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
    tr, te = rng.uniform(2000, LONGEST_TR_OF_PD[modality]), rng.uniform(8, 25)
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
    """The source's anatomy with these signals."""
    if isinstance(source, SimulatedHead):
        return source.head.person(rng).render(signals)
    assert isinstance(source, Example) and source.tissues is not None
    inner, outer = (_mapped(source.volume, known, signals) for known in source.tissues)
    shown = outer + source.inside * (inner - outer)
    # In the scans that models are trained on bone is as dark as air.
    if signals["bone"] > signals["muscle"]:
        shown[_skull(source.volume) & ~source.region] = signals["bone"]
    return np.asarray(shown, dtype=np.float32)


def _mapped(volume: Volume, known: Signals, signals: Signals) -> Volume:
    """A curve through the signals of the known tissues, falling or rising."""
    names = sorted(known, key=lambda name: known[name])
    knots, values = [0.0, *(known[name] for name in names)], [0.0, *(signals[name] for name in names)]
    # Around a skull-stripped brain there are no tissues.
    if not knots[-1] > 0:
        return volume
    beyond = np.maximum(volume - knots[-1], 0) * (values[-1] / knots[-1])
    return np.asarray(np.interp(volume, knots, values) + beyond, dtype=np.float32)


def _skull(volume: Volume) -> Mask:
    """What is dark within the head."""
    bright = volume > DARK * intensity_scale(volume)
    return np.asarray(_head(volume) & ~bright, dtype=bool)


def _head(volume: Volume) -> Mask:
    closed = ndimage.binary_closing(volume > DARK * intensity_scale(volume), iterations=3)
    return np.asarray(ndimage.binary_fill_holes(closed), dtype=bool)


def _inverted(source: Source, rng: np.random.Generator) -> Example:
    """Dark where it was bright, inside the head or everywhere."""
    volume = source.contrast(BY_SCANNERS, rng, 1.0)[0]
    turned = np.maximum(intensity_scale(volume) * np.float32(rng.uniform(1, 1.2)) - volume, 0)
    return _example(turned if rng.random() < 0.4 else turned * _head(volume), source)


# --- Objects ----------------------------------------------------------------------------------------------


def _bottle(rng: np.random.Generator) -> Example:
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


def _noise(rng: np.random.Generator) -> Example:
    """Nothing but noise, of voxels or of blobs."""
    x, y, z = _axes()
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    blobs = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), rng.uniform(0, 3))
    return _object(np.abs(blobs), np.ones(shape, dtype=bool))


OBJECTS: Mapping[str, Callable[[np.random.Generator], Example]] = {"phantom": _bottle, "noise": _noise}


def _axes() -> tuple[Volume, Volume, Volume]:
    """Coordinates in mm, ready to be broadcast."""
    line = np.arange(-EXTENT / 2, EXTENT / 2, VOXEL, dtype=np.float32)
    return line[:, None, None], line[:, None], line


def _object(volume: Volume, inside: Mask) -> Example:
    zooms = (VOXEL, VOXEL, VOXEL)
    return Example(volume=volume, zooms=zooms, region=inside, inside=inside.astype(np.float32))


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
    """A part of the volume, not of air only; the largest part of several if all are mostly air."""
    extent = [max(1, round(n * share)) for n, share in zip(volume.shape, shares, strict=True)]
    views = []
    for _ in range(10):
        starts = [int(rng.integers(n - m + 1)) for n, m in zip(volume.shape, extent, strict=True)]
        view = volume[tuple(slice(a, a + m) for a, m in zip(starts, extent, strict=True))]
        views.append(view)
        if np.mean(view > DARK) > LEAST_FOREGROUND:
            break
    return np.ascontiguousarray(max(views, key=lambda view: float(np.mean(view > DARK))))


#: How often each kind is drawn, where it can be made.
KINDS: Mapping[str, float] = {
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


# --- Fitting ----------------------------------------------------------------------------------------------

# Half of them familiar, half foreign. Of 900, a tenth fewer of the foreign ones were told.
SCANS = 2000
FOLDS, HIDDEN, STEPS_OF_FIT, LEARNING_RATE, DECAY = 4, 32, 300, 3e-3, 0.3
# Noise on the features, in standard deviations: it stands for the scanners that are in no fitting.
BLUR = 0.6
# Share of familiar scans, held out of the fitting, that are flagged.
FALSE_ALARMS = 0.02


def fit_recognizer(
    sources: Sequence[Source], modality: str, *, seed: int = 0, scans: int = SCANS
) -> dict[str, Any]:
    """Learn to tell what a model is meant for; a quarter of a second for each scan that is drawn.

    Parameters
    ----------
    sources
        What the model was trained on.
    modality
        T1w or T2w.

    Returns
    -------
    dict
        The entry ``Recognizer`` of a model card: threshold and weights, and in ``HeldOut`` how many scans of
        each kind were flagged by classifiers that had not seen them.
    """
    rng = np.random.default_rng(seed)
    kinds, described = [], []
    for draw in (draw_familiar, draw_foreign):
        for _ in range(scans // 2):
            scan = draw(sources, modality, rng)
            kinds.append(scan.kind)
            described.append(_features(scan))
    features, foreign = torch.stack(described), torch.tensor([kind != FAMILIAR for kind in kinds])
    fitted, logits = _cross_validated(features, foreign, seed)
    limit = float(torch.quantile(logits[~foreign], 1 - FALSE_ALARMS))
    recognizer = replace(fitted, threshold=float(torch.sigmoid(torch.tensor(limit))))
    flags: defaultdict[str, list[bool]] = defaultdict(list)
    for kind, logit in zip(kinds, logits.tolist(), strict=True):
        flags[kind].append(logit > limit)
    held_out = {kind: f"{sum(found)} of {len(found)}" for kind, found in sorted(flags.items())}
    return recognizer.card() | {"HeldOut": held_out}


def _features(scan: Drawn) -> Tensor:
    cells = Cells.of(scan.volume.shape, scan.zooms)
    return describe(splat(torch.from_numpy(np.ascontiguousarray(scan.volume)), cells))


def _cross_validated(features: Tensor, foreign: Tensor, seed: int) -> tuple[Recognizer, Tensor]:
    """The mean of classifiers that each have not seen a part of the scans, and the logits of that part."""
    centre, spread = features.mean(0), features.std(0) + 0.02
    fold = torch.from_numpy(np.random.default_rng(seed).permutation(len(features)) % FOLDS)
    logits = torch.zeros(len(features))
    parts = []
    for number in range(FOLDS):
        held_out = fold == number
        layers = _fit(((features - centre) / spread)[~held_out], foreign[~held_out].float(), seed + number)
        parts.append(layers)
        one = Recognizer(centre=centre, spread=spread, layers=layers, threshold=0.5)
        logits[held_out] = one.logits(features[held_out])
    first, first_bias, second, second_bias = zip(*parts, strict=True)
    # Side by side in one hidden layer, their outputs averaged.
    layers = (
        torch.cat(first),
        torch.cat(first_bias),
        torch.cat(second, dim=1) / FOLDS,
        torch.stack(second_bias).mean(0),
    )
    return Recognizer(centre=centre, spread=spread, layers=layers, threshold=0.5), logits


def _fit(deviations: Tensor, foreign: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Weights and biases of one classifier, both classes of equal weight."""
    generator = torch.Generator().manual_seed(seed)
    deviations = deviations.clamp(-LARGEST, LARGEST)
    first = _layer(deviations.shape[1], HIDDEN, generator)
    second = _layer(HIDDEN, 1, generator)
    optimizer = torch.optim.AdamW([*first, *second], lr=LEARNING_RATE, weight_decay=DECAY)
    weight = torch.where(foreign > 0, 0.5 / foreign.mean(), 0.5 / (1 - foreign.mean()))
    for _ in range(STEPS_OF_FIT):
        noisy = deviations + BLUR * torch.randn(deviations.shape, generator=generator)
        logits = F.linear(F.silu(F.linear(noisy, *first)), *second)[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, foreign, weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tuple(tensor.detach() for tensor in (*first, *second))


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights and biases at random, as torch's linear layers begin."""
    bound = inputs**-0.5
    weights, biases = (
        (torch.rand(shape, generator=generator) * 2 - 1).mul(bound).requires_grad_()
        for shape in ((outputs, inputs), (outputs,))
    )
    return weights, biases
