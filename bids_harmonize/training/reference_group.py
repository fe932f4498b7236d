"""The reference group: what is measured on a scan, and which scans make the best group.

A group is good if each of its scans is good and if they are alike. Each candidate gets a *quality*: the
mean of the deviations of its measures (`bids_harmonize.measures.image_quality`) from those of all
candidates. And it gets a *homogeneity*: the deviation of its distance from the group's intensities, taken
anew whenever a scan leaves. The candidate with the lowest sum leaves, again and again, until the group has
its size. In the mean, one measure can weigh little; the distance weighs as much as it is, so a scan unlike
the others leaves, however good it is.

Deviations are robust: from the median, in median absolute deviations (Hampel 1974).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.brain.search import find_brain
from bids_harmonize.errors import BadData
from bids_harmonize.imaging.blocks import Blocks
from bids_harmonize.imaging.body_part import shows_brain
from bids_harmonize.imaging.brain import Brain, NoBrain
from bids_harmonize.imaging.masks import middle_tissue, tissue_mask
from bids_harmonize.imaging.tissues import TISSUE_ORDER, white_and_grey
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.image_quality import (
    QUALITY_METRICS,
    UNMEASURED,
    Quality,
    format_significant,
    measure_quality,
)
from bids_harmonize.measures.quantiles import region_quantiles
from bids_harmonize.measures.robust import robust_deviations

# Deviations are cut at this many: a ruined measure shows that a scan is bad, not how bad.
MAX_ABS_Z = 3.0
# Least spread that deviations are measured in: candidates that differ by a smaller share count as the same.
MIN_SPREAD = 0.05
# Deviations above this are mentioned in the explanation.
OUTLIER_Z = 1.5


@dataclass(frozen=True, kw_only=True)
class ReferenceScan:
    """One scan of the group: name, volume (x, y, z), zooms in mm, and what was measured on it.

    `region` is the anatomy that counts, the brain in a head; `reference_intensity` its typical
    intensity, that of white matter in a head.
    """

    name: str
    volume: Volume
    zooms: tuple[float, float, float]
    region: Mask
    reference_intensity: float
    quality: Quality = UNMEASURED

    @property
    def quantiles(self) -> NDArray[np.float64]:
        """The region's quantile function in units of its reference intensity."""
        return region_quantiles(self.volume, self.region) / self.reference_intensity

    def tissue(self, unit: float) -> NDArray[np.float32]:
        """Intensities of all voxels brighter than air, scaled so that the reference intensity is `unit`."""
        return self.volume[tissue_mask(self.volume, self.zooms)] * np.float32(unit / self.reference_intensity)


@dataclass(frozen=True, kw_only=True)
class CandidateScore:
    """How a candidate compares: its quality among all, its distance among the group it stood in last.

    Attributes
    ----------
    quality
        Mean of the deviations of its measures; more is better.
    homogeneity
        Deviation of its distance; more is better.
    distance
        Mean difference of its quantile function from the group's median, in units of the reference intensity.
    typical_distance
        The group's median of it.
    deviations
        Per measure; negative is worse than the median of the candidates.
    """

    scan: ReferenceScan
    quality: float
    homogeneity: float
    distance: float
    typical_distance: float
    deviations: Mapping[str, float]

    @property
    def score(self) -> float:
        """What the candidates are ranked by."""
        return self.quality + self.homogeneity


@dataclass(frozen=True, kw_only=True)
class RankedCandidate:
    """A candidate's rank (1 is best; the first one removed is last), whether it was chosen, and why."""

    candidate: CandidateScore
    rank: int
    chosen: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReferenceSelection:
    """The group and the held-out scans, both in the order of the candidates; ranking, the best first."""

    group: list[ReferenceScan]
    held_out: list[ReferenceScan]
    ranking: list[RankedCandidate]


def measure_scan(
    name: str,
    volume: Volume,
    zooms: tuple[float, float, float],
    modality: str,
    body_part: str = "HEAD",
) -> ReferenceScan:
    """Find the region that counts and its reference intensity, and measure the quality.

    In a head these are the brain and the median of its white matter; elsewhere, the tissue in the middle of
    the field of view and its median.

    Parameters
    ----------
    volume
        (x, y, z), finite, not negative, in the orientation nearest to RAS.
    zooms
        Voxel size in mm.
    modality
        If it is one of `TISSUE_ORDER`, the contrast of the brain's tissues is measured.
    body_part
        DICOM's term for it.

    Raises
    ------
    BadData
        There is no brain in a head, or no tissue in another body part.
    """
    tissues = None
    try:
        if shows_brain([body_part]):
            brain = _find_brain(volume, zooms)
            region, white = brain.mask, brain.white_matter
            if modality in TISSUE_ORDER:
                tissues = white_and_grey(volume, region, modality=modality)
        else:
            region = white = middle_tissue(volume, zooms)
    except BadData as error:
        raise BadData(f"{name}: {error}; leave the scan out of the group") from error
    level = float(np.median(volume[white]))
    quality = measure_quality(volume, zooms, region, tissues)
    return ReferenceScan(
        name=name, volume=volume, zooms=zooms, region=region, reference_intensity=level, quality=quality
    )


def _find_brain(volume: Volume, zooms: tuple[float, float, float]) -> Brain:
    blocks = Blocks.of(volume.shape, zooms)
    found = find_brain(blocks.means(volume), blocks.zooms, np.diag([*zooms, 1.0]))
    if isinstance(found, NoBrain):
        raise BadData(found.reason)
    return found.on_grid(lambda mask: blocks.whole(mask, volume.shape), zooms)


def select_group(scans: Sequence[ReferenceScan], size: int) -> ReferenceSelection:
    """Choose the `size` scans that make the best group; all, if there are no more.

    Parameters
    ----------
    scans
        All candidates, of one modality and body part; at least one.
    size
        Scans in the group.
    """
    deviations = _deviations(scans)
    curves = [scan.quantiles for scan in scans]
    members = list(range(len(scans)))
    left: list[CandidateScore] = []
    while True:
        candidates = _score_candidates(
            [scans[n] for n in members],
            np.stack([curves[n] for n in members]),
            [deviations[n] for n in members],
        )
        if len(members) <= size:
            break
        worst = int(np.argmin([candidate.score for candidate in candidates]))
        left.insert(0, candidates[worst])
        del members[worst]
    stayed = sorted(candidates, key=lambda candidate: -candidate.score)
    return ReferenceSelection(
        group=[scans[n] for n in members],
        held_out=[scan for n, scan in enumerate(scans) if n not in members],
        ranking=_ranked(stayed, left),
    )


def _score_candidates(
    scans: Sequence[ReferenceScan],
    curves: NDArray[np.float64],
    deviations: Sequence[Mapping[str, float]],
) -> list[CandidateScore]:
    distances = np.abs(curves - np.median(curves, axis=0)).mean(axis=1)
    typical = float(np.median(distances))
    homogeneity = robust_deviations(-distances / (typical or distances.max() or 1.0), MIN_SPREAD)
    return [
        CandidateScore(
            scan=scan,
            quality=float(np.mean(list(own.values()) or [0.0])),
            homogeneity=float(homogeneity[n]),
            distance=float(distances[n]),
            typical_distance=typical,
            deviations=own,
        )
        for n, (scan, own) in enumerate(zip(scans, deviations, strict=True))
    ]


def _deviations(scans: Sequence[ReferenceScan]) -> list[dict[str, float]]:
    """Per scan and measure, the deviation to the good side.

    All measures are positive ratios, so their logarithms are compared.
    """
    deviations: list[dict[str, float]] = [{} for _ in scans]
    for name, measure in QUALITY_METRICS.items():
        measured = [n for n, scan in enumerate(scans) if name in scan.quality.values]
        if not measured:
            continue
        logs = np.log([scans[n].quality.values[name] for n in measured])
        signed = robust_deviations(logs if measure.more_is_better else -logs, MIN_SPREAD)
        for n, value in zip(measured, signed, strict=True):
            deviations[n][name] = float(np.clip(value, -MAX_ABS_Z, MAX_ABS_Z))
    return deviations


def _ranked(stayed: Sequence[CandidateScore], left: Sequence[CandidateScore]) -> list[RankedCandidate]:
    candidates = [*stayed, *left]
    typical = {
        name: float(np.median(values))
        for name in QUALITY_METRICS
        if (values := [score.scan.quality.values[name] for score in candidates if name in score.deviations])
    }
    return [
        RankedCandidate(
            candidate=score,
            rank=n + 1,
            chosen=n < len(stayed),
            reason=_reason(score, n < len(stayed), typical),
        )
        for n, score in enumerate(candidates)
    ]


def _reason(candidate: CandidateScore, chosen: bool, typical: Mapping[str, float]) -> str:
    found = {"distance": candidate.homogeneity, **candidate.deviations}
    names = sorted(found, key=lambda name: found[name])
    weak = [name for name in names if found[name] < -OUTLIER_Z]
    strong = [name for name in reversed(names) if found[name] > OUTLIER_Z]
    if not chosen:
        # If no metric stands out, the lowest one explains the rejection.
        return "; ".join(_describe_metric(name, False, candidate, typical) for name in weak or names[:1])
    good = [_describe_metric(name, True, candidate, typical) for name in strong]
    bad = [_describe_metric(name, False, candidate, typical) for name in weak]
    return "; ".join([*good, *(["in spite of " + ", ".join(bad)] if bad else [])]) or "nothing stands out"


def _describe_metric(name: str, good: bool, candidate: CandidateScore, typical: Mapping[str, float]) -> str:
    if name == "distance":
        what = "intensities like the others'" if good else "intensities unlike the others'"
        value, middle = candidate.distance, candidate.typical_distance
    else:
        what = QUALITY_METRICS[name].strength if good else QUALITY_METRICS[name].weakness
        value, middle = candidate.scan.quality.values[name], typical[name]
    label = name if name == "distance" else name.upper()
    return f"{what} ({label} {format_significant(value)}, typical {format_significant(middle)})"
