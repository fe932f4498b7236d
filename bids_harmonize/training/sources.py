"""What pairs are drawn from: reference scans and simulated heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Interface

import numpy as np
from scipy import ndimage

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.tissues import TISSUE_ORDER, tissue_limits
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.simulation.protocols import (
    BRAIN_TISSUES,
    REFERENCE_PROTOCOLS,
    TISSUES,
    draw_protocol,
    vary_tissues,
)
from bids_harmonize.simulation.signal_equations import Tissue
from bids_harmonize.training.alterations.kspace import SmoothField
from bids_harmonize.training.alterations.tone import (
    SurroundingGain,
    ToneCurve,
    blend,
    piecewise_linear_map,
)
from bids_harmonize.training.recipe import Recipe
from bids_harmonize.training.reference_group import ReferenceScan

WORKING_MM = 2.0
# What is darker than this, in units of white matter, is taken for air.
AIR_INTENSITY = 0.15
# Simulated heads weigh less outside the brain, because their tissues there are less certain than a scan's.
SIMULATED_SURROUNDINGS = 0.15
# What a person's own look like beside their white matter. The signal of fluid depends on how it flows, and on
# little else that is a person's own.
GREY_TISSUES = ("grey matter", "deep grey matter")
# Most spots of each kind in a simulated head; three in four have none.
SPOTS = {"lesion": 30, "enhancement": 5}
# Smallest share, relative to the brain's voxels, of voxels around it: a skull-stripped brain has fewer.
MIN_SURROUNDINGS = 0.05


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
class ReferenceExample:
    """A reference scan on a grid small enough to train on, in units of its reference intensity.

    `tissues` are the intensities of tissues inside the region and outside it, where a skull-stripped scan has
    none; None where the region is not a brain, or no signal equation is known for the modality.
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
        if self.tissues is not None and recipe.is_drawn("Acquisition", rng):
            volume = self._acquired(self.tissues, rng, strength)
        volume = volume / np.float32(intensity_scale(volume))
        if recipe.is_drawn("ToneCurve", rng):
            volume = ToneCurve.sample(rng, strength).apply(volume)
        if recipe.is_drawn("LocalToneCurves", rng):
            volume = _local_tone(volume, rng, strength)
        if recipe.is_drawn("SurroundingGain", rng):
            volume = SurroundingGain.sample(rng, strength).apply(volume, self.inside)
        return volume, self.volume

    def _acquired(
        self, tissues: tuple[dict[str, float], dict[str, float]], rng: np.random.Generator, strength: float
    ) -> Volume:
        """The scan as another protocol would show it: one curve through its tissues inside, one outside."""
        # The person stays the same: a curve that changed what is special about the brain's tissues would
        # teach the network to remove it.
        signals = draw_protocol(self.modality, rng).signals(vary_tissues(rng, fixed=BRAIN_TISSUES))
        scale = 1 / signals["white matter"]
        inner, outer = (
            piecewise_linear_map(
                self.volume, known, _rising(known, {name: scale * signals[name] for name in known})
            )
            for known in (tissues[0], tissues[1] or tissues[0])
        )
        new = blend(inner, outer, self.inside)
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
        """A person under a protocol at random, whatever the strength, and under the reference group's."""
        spots = {name: int(rng.integers(1, most)) for name, most in SPOTS.items() if rng.random() < 0.25}
        person = self.head.person(rng, spots, grain=recipe.personal_grain * rng.random())
        tissues = vary_tissues(rng, recipe.personal_spread)
        signals = draw_protocol(self.modality, rng).signals(tissues)
        return person.render(signals), person.render(self.own_reference(tissues, signals))

    def own_reference(self, tissues: Mapping[str, Tissue], signals: Mapping[str, float]) -> dict[str, float]:
        """What a person looks like in the reference group: as others, but for what is special about them.

        White matter is the unit, as in the scans of the group, whatever gain the scanner had; so what is
        special about a person is what other tissues look like beside it. Contrast agent, of which the group
        has none, stays as much brighter than white matter as it is in the person's scan.

        Parameters
        ----------
        tissues
            The person's own.
        signals
            Their signals in the person's scan.
        """
        protocol = REFERENCE_PROTOCOLS[self.modality]
        own = dict(self.reference)
        white = own["white matter"]
        gain = white / protocol.signal("white matter", tissues)
        usual_gain = white / protocol.signal("white matter")
        for name in GREY_TISSUES:
            own[name] *= gain * protocol.signal(name, tissues) / (usual_gain * protocol.signal(name))
        own["lesion"] = gain * protocol.signal("lesion", tissues)
        own["enhancement"] = white * signals["enhancement"] / signals["white matter"]
        return own


def at_echo_time(scan: ReferenceScan, before: float, after: float) -> ReferenceScan:
    """A T2w scan as a longer or shorter echo would show it: one curve through its own tissues.

    Parameters
    ----------
    before, after
        Echo times, ms. Each tissue decays by ``exp((before - after) / T2)``; white matter keeps its level.
    """
    unit = np.float32(scan.reference_intensity)
    known, _ = tissue_levels(_example(scan.volume / unit, scan.zooms, scan.region), "T2w")
    decay = {name: np.exp((before - after) / TISSUES[name].t2) for name in known}
    wanted = {name: known[name] * decay[name] / decay["white matter"] for name in known}
    return replace(scan, volume=piecewise_linear_map(scan.volume / unit, known, wanted) * unit)


def reference_examples(
    scan: ReferenceScan, modality: str = "T1w", *, brain: bool = True
) -> list[ReferenceExample]:
    """Two versions of a scan: averaged to 2 mm, and subsampled to about 2 mm without averaging.

    The latter keeps the noise and the sharp histograms of the full resolution.
    """
    volume = scan.volume / np.float32(scan.reference_intensity)
    steps = [max(1, round(WORKING_MM / zoom)) for zoom in scan.zooms]
    every = tuple(slice(None, None, step) for step in steps)
    x, y, z = (zoom * step for zoom, step in zip(scan.zooms, steps, strict=True))
    versions = [
        _averaged(volume, scan.region, scan.zooms),
        _example(volume[every], (x, y, z), scan.region[every]),
    ]
    tissues = tissue_levels(versions[0], modality) if brain and modality in REFERENCE_PROTOCOLS else None
    return [replace(version, modality=modality, tissues=tissues) for version in versions]


def simulated_heads(
    heads: Sequence[Head], group: Sequence[ReferenceExample], modality: str
) -> list[SimulatedHead]:
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
    protocol = REFERENCE_PROTOCOLS[modality]
    for _ in range(4):
        share = 0.4 if modality == "T1w" else 0.5
        reference["deep grey matter"] = (1 - share) * reference["grey matter"] + share * reference[
            "white matter"
        ]
        gain = reference["white matter"] / protocol.signal("white matter")
        reference["lesion"] = gain * protocol.signal("lesion")
        rendered = [_example(p.render(reference), p.head.zooms, p.head.brain) for p in people]
        classes = [tissue_levels(example, modality)[0] for example in rendered]
        for name, aim in inner.items():
            reference[name] *= aim / float(np.median([levels[name] for levels in classes]))
    return [
        SimulatedHead(
            head=head,
            inside=_soft_mask(head.brain, head.zooms),
            modality=modality,
            reference=reference,
            surroundings=SIMULATED_SURROUNDINGS if outer else 0.0,
        )
        for head in heads
    ]


def tissue_levels(example: ReferenceExample, modality: str) -> tuple[dict[str, float], dict[str, float]]:
    """Intensities of the brain's tissues, by k-means, and of muscle and fat around it.

    Parameters
    ----------
    modality
        One of `TISSUE_ORDER`.

    Raises
    ------
    BadData
        The brain has fewer than three different intensities.
    """
    values = example.volume[example.region]
    names = TISSUE_ORDER[modality]
    low, *thresholds, high = tissue_limits(values)
    kept = values[(values >= low) & (values <= high)]
    nearest = np.searchsorted(thresholds, kept)
    classes = [kept[nearest == k] for k in range(len(names))]
    if not all(found.size for found in classes):
        raise BadData("the tissues of its brain are all alike; leave the scan out of the group")
    inside = [float(np.median(found)) for found in classes]
    # Sulci are mostly partial volume; the ventricles are the darkest, or the brightest, of a brain.
    fluid = names.index("csf")
    inside[fluid] = float(np.percentile(values, 2 if fluid == 0 else 98))
    inner = dict(zip(names, inside, strict=True))
    around = example.volume[(example.volume > AIR_INTENSITY) & (example.inside < 0.02)]
    if around.size < MIN_SURROUNDINGS * values.size:
        return inner, {}
    # Most of what surrounds the brain is muscle or mixed with it; little is nothing but fat.
    outside = np.percentile(around, [35, 93])
    return inner, dict(zip(("muscle", "fat"), outside.tolist(), strict=True))


def _rising(known: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, float]:
    """The wanted intensities in the order of those known, so that the map through them rises.

    Tissues that a protocol does not tell apart stay distinguishable, if hardly.
    """
    names = sorted(known, key=lambda name: known[name])
    values = np.maximum.accumulate([wanted[name] for name in names])
    values = values + 0.02 * values[-1] * np.arange(len(names))
    return dict(zip(names, values, strict=True))


def _typical(levels: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians, over the scans in which there is something to be seen."""
    known = [one for one in levels if one]
    return {name: float(np.median([one[name] for one in known])) for name in (known[0] if known else ())}


def _outside_signals(outer: Mapping[str, float]) -> dict[str, float]:
    """What tissues outside the brain look like, from the two classes that are seen there."""
    muscle, fat = outer.get("muscle", 0.0), outer.get("fat", 0.0)
    mixed = {"mucosa": 1.2 * muscle, "blood": muscle, "marrow": 0.6 * fat, "bone": 0.2 * muscle}
    return {**dict.fromkeys(TISSUES, 0.0), **outer, **mixed}


def _averaged(volume: Volume, region: Mask, zooms: tuple[float, float, float]) -> ReferenceExample:
    factors = [min(1.0, zoom / WORKING_MM) for zoom in zooms]
    smooth = ndimage.gaussian_filter(volume, [0.4 * (1 / f - 1) for f in factors])
    small = ndimage.zoom(smooth, factors, order=1, mode="nearest", grid_mode=True)
    mask = ndimage.zoom(region.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True) > 0.5
    x, y, z = (zoom * n / m for zoom, n, m in zip(zooms, volume.shape, small.shape, strict=True))
    return _example(small, (x, y, z), mask)


def _example(volume: Volume, zooms: tuple[float, float, float], region: Mask) -> ReferenceExample:
    return ReferenceExample(
        volume=np.ascontiguousarray(volume),
        zooms=zooms,
        region=np.ascontiguousarray(region),
        inside=_soft_mask(region, zooms),
    )


def _soft_mask(region: Mask, zooms: Sequence[float]) -> Volume:
    soft = ndimage.gaussian_filter(region.astype(np.float32), [2.0 / zoom for zoom in zooms])
    return np.asarray(soft, dtype=np.float32)


def _local_tone(volume: Volume, rng: np.random.Generator, strength: float) -> Volume:
    """Two tone curves, blended by a smooth field: contrast that differs from place to place."""
    first, second = (ToneCurve.sample(rng, strength).apply(volume) for _ in range(2))
    field = np.log(SmoothField.sample(rng, 6.0).field(volume.shape))
    return blend(second, first, 1 / (1 + np.exp(-2 * field)))
