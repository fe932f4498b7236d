"""Quantile functions and tissue medians of outputs, in units of the reference group's white matter.

Baselines put out values of any scale. So that none gains or loses by its own, every baseline gets one linear
map, the same for all scans: the least-squares fit of the quantile functions of its harmonized reference
scans to those of the reference scans themselves, each with its white matter at 1000. It has a slope and an
offset, as z-scores and landmarks have a zero of their own. Ours gets no map: that scale is what it promises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import Method, n4_corrected
from benchmarks.one_scan import OURS
from benchmarks.scans import Mask, Scan, Volume
from bids_harmonize.imaging import masks
from bids_harmonize.imaging.masks import BRAIN_MILLILITRES
from bids_harmonize.imaging.tissues import white_and_grey
from bids_harmonize.measures.quantiles import QUANTILES

Curve = NDArray[np.float64]
Region = Literal["head", "brain"]

#: The intensity that white matter has in units of the reference group.
WHITE_MATTER = 1000.0
# More voxels than this change no digit that is shown.
MAX_SAMPLE = 100_000


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map of intensities."""

    slope: float
    offset: float = 0.0

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        return values * np.float32(self.slope) + np.float32(self.offset)


@dataclass(frozen=True, kw_only=True)
class Intensities:
    """What is measured on one output, always inside the masks of the raw scan.

    Attributes
    ----------
    curves
        Quantile functions inside the head and inside the brain; of a skull-stripped scan both are those of
        the brain.
    white, grey
        Medians in the classes that k-means finds inside the brain of the raw scan, corrected by N4: classes
        of the output would be at the same place in any histogram brought to one template. Not a number where
        the automatic mask is too large or too small to be a brain. For a prostate, the intensity that
        stands for white matter, and no grey matter.
    """

    site: str
    stripped: bool
    curves: Mapping[Region, Curve]
    white: float
    grey: float

    def scaled(self, scale: Scale) -> Intensities:
        """The same on another scale."""
        return replace(
            self,
            curves={region: self.curves[region] * scale.slope + scale.offset for region in self.curves},
            white=self.white * scale.slope + scale.offset,
            grey=self.grey * scale.slope + scale.offset,
        )


def measure(scan: Scan, volume: Volume) -> Intensities:
    """Measure a volume that was made of a scan."""
    brain = sample(volume, scan.brain)
    stripped = is_stripped(scan)
    head = brain if stripped else sample(volume, scan.head)
    white, grey = _medians(scan, volume)
    return Intensities(
        site=scan.site,
        stripped=stripped,
        curves={"head": np.quantile(head, QUANTILES), "brain": np.quantile(brain, QUANTILES)},
        white=white,
        grey=grey,
    )


@lru_cache(maxsize=32)
def as_it_is(scan: Scan) -> Intensities:
    """Measure a raw scan in units of its own white matter."""
    raw = measure(scan, scan.volume)
    return raw.scaled(Scale(slope=WHITE_MATTER / raw.white))


def is_stripped(scan: Scan) -> bool:
    """Whether nothing but a brain is left of the head."""
    return masks.is_stripped(scan.volume)


def has_brain(scan: Scan) -> bool:
    """Whether the brain mask has the size of a brain."""
    low, high = BRAIN_MILLILITRES
    return bool(low < np.count_nonzero(scan.brain) * np.prod(scan.zooms) / 1000 < high)


def sample(volume: Volume, region: Mask) -> Curve:
    """Intensities of a region; a large one is subsampled at equal distances."""
    values = volume[region]
    return values[:: max(1, values.size // MAX_SAMPLE)].astype(np.float64)


def _medians(scan: Scan, volume: Volume) -> tuple[float, float]:
    if scan.prostate:
        return float(np.median(volume[scan.brain])), np.nan
    if not has_brain(scan):
        return np.nan, np.nan
    white, grey = _tissues(scan)
    return float(np.median(volume[white])), float(np.median(volume[grey]))


@lru_cache(maxsize=64)
def _tissues(scan: Scan) -> tuple[Mask, Mask]:
    """White and grey matter, found where shading does not hide them."""
    return white_and_grey(n4_corrected(scan), scan.brain, modality=scan.modality)


def tissue_medians(values: Curve, modality: str) -> tuple[float, float]:
    """Medians of white and grey matter among the intensities of a brain."""
    everywhere = np.ones(values.shape, dtype=bool)
    intensities = values.astype(np.float32)
    white, grey = white_and_grey(intensities, everywhere, modality=modality)
    return float(np.median(values[white])), float(np.median(values[grey]))


def fit_scale(outputs: Sequence[Curve], wanted: Sequence[Curve]) -> Scale:
    """The linear map that brings quantile functions nearest to those wanted."""
    slope, offset = np.polyfit(np.concatenate(outputs), np.concatenate(wanted), 1)
    return Scale(slope=float(slope), offset=float(offset))


def harmonized_group(method: Method, reference: Sequence[Scan]) -> tuple[Scale, list[Intensities]]:
    """The map of a method's outputs to the scale of the reference group, and the group's outputs on it."""
    group = [measure(scan, method.apply(scan)) for scan in reference]
    if method.name == OURS:
        return Scale(slope=1.0), group
    outputs = [scan.curves["head"] for scan in group]
    wanted = [as_it_is(scan).curves["head"] for scan in reference]
    scale = fit_scale(outputs, wanted)
    return scale, [scan.scaled(scale) for scan in group]


def group_curve(group: Sequence[Intensities], region: Region) -> Curve:
    """The median quantile function."""
    return np.asarray(np.median([scan.curves[region] for scan in group], axis=0))
