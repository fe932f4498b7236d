"""The reference group: what is measured on a scan, and which scans make the best group.

A group is good if each of its scans is good and if they are alike. Each candidate gets a *quality*: the mean
of the deviations of its measures (`bids_harmonize.quality`) from those of all candidates. And it gets a
*homogeneity*: the deviation of its distance from the group's intensities, taken anew whenever a scan leaves.
The candidate with the lowest sum leaves, again and again, until the group has its size. In the mean, one
measure can weigh little; the distance weighs as much as it is, so a scan unlike the others leaves, however
good it is.

Deviations are robust: from the median, in median absolute deviations (Hampel 1974).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.anatomy import (
    Mask,
    Volume,
    brain_mask,
    check_brain,
    middle_tissue,
    white_and_grey,
)
from bids_harmonize.errors import BadData
from bids_harmonize.metrics import robust_deviations
from bids_harmonize.quality import MEASURES, UNMEASURED, Quality, in_digits, measure_quality

QUANTILES = np.linspace(0.02, 0.98, 49)
# DICOM's terms for body parts that show a brain.
HEADS = frozenset({"HEAD", "BRAIN", "SKULL", "HEADNECK"})
# A ruined measure tells that a scan is bad, not how bad.
MOST_OF_ONE_MEASURE = 3.0
# Candidates that differ by a smaller share are alike, however equal all the others are.
ALIKE = 0.05
# What a reason names.
REMARKABLE = 1.5


@dataclass(frozen=True, kw_only=True)
class ReferenceScan:
    """One scan of the group: name, volume (x, y, z), zooms in mm, and what was measured on it.

    `region` is the anatomy that counts, the brain in a head; `level` its typical intensity, that of white
    matter in a head.
    """

    name: str
    volume: Volume
    zooms: tuple[float, float, float]
    region: Mask
    level: float
    quality: Quality = UNMEASURED

    @property
    def quantiles(self) -> NDArray[np.float64]:
        """The region's quantile function in units of its level."""
        return np.quantile(self.volume[self.region].astype(np.float64), QUANTILES) / self.level


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How a candidate compares: its quality among all, its distance among the group it stood in last.

    Attributes
    ----------
    quality
        Mean of the deviations of its measures; more is better.
    homogeneity
        Deviation of its distance; more is better.
    distance
        Mean difference of its quantile function from the group's median, in units of the level.
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
        """What decides."""
        return self.quality + self.homogeneity


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """In or out, and why, in words; rank 1 is the best, and who left first has the last."""

    judgement: Judgement
    rank: int
    chosen: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The group and those left out, both in the order of the candidates; verdicts, the best first."""

    group: list[ReferenceScan]
    left_out: list[ReferenceScan]
    verdicts: list[Verdict]


def measure_scan(
    name: str,
    volume: Volume,
    zooms: tuple[float, float, float],
    modality: str,
    body_part: str = "HEAD",
) -> ReferenceScan:
    """Find the region that counts and its level, and measure the quality.

    In a head these are the brain and the median of its white matter; elsewhere, the tissue in the middle of
    the field of view and its median.

    Parameters
    ----------
    volume
        (x, y, z), finite, not negative, in the orientation nearest to RAS.
    zooms
        Voxel size in mm.
    modality
        ``T1w`` where white matter is the brightest of the brain's tissues; in others it is the darkest.
    body_part
        DICOM's term for it.

    Raises
    ------
    BadData
        There is no brain in a head, or no tissue in another body part.
    """
    tissues = None
    try:
        if body_part.upper() in HEADS:
            region = brain_mask(volume, zooms)
            check_brain(region, zooms)
            tissues = white_and_grey(volume, region, bright=modality == "T1w")
        else:
            region = middle_tissue(volume, zooms)
    except BadData as error:
        raise BadData(f"{name}: {error}; leave the scan out of the group") from error
    level = float(np.median(volume[tissues[0] if tissues else region]))
    quality = measure_quality(volume, zooms, region, tissues)
    return ReferenceScan(name=name, volume=volume, zooms=zooms, region=region, level=level, quality=quality)


def choose_group(scans: Sequence[ReferenceScan], size: int) -> Choice:
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
    left: list[Judgement] = []
    while True:
        judgements = _judge(
            [scans[n] for n in members],
            np.stack([curves[n] for n in members]),
            [deviations[n] for n in members],
        )
        if len(members) <= size:
            break
        worst = int(np.argmin([judgement.score for judgement in judgements]))
        left.insert(0, judgements[worst])
        del members[worst]
    stayed = sorted(judgements, key=lambda judgement: -judgement.score)
    return Choice(
        group=[scans[n] for n in members],
        left_out=[scan for n, scan in enumerate(scans) if n not in members],
        verdicts=_verdicts(stayed, left),
    )


def _judge(
    scans: Sequence[ReferenceScan],
    curves: NDArray[np.float64],
    deviations: Sequence[Mapping[str, float]],
) -> list[Judgement]:
    distances = np.abs(curves - np.median(curves, axis=0)).mean(axis=1)
    typical = float(np.median(distances))
    homogeneity = robust_deviations(-distances / (typical or distances.max() or 1.0), ALIKE)
    return [
        Judgement(
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
    for name, measure in MEASURES.items():
        measured = [n for n, scan in enumerate(scans) if name in scan.quality.values]
        if not measured:
            continue
        logs = np.log([scans[n].quality.values[name] for n in measured])
        signed = robust_deviations(logs if measure.more_is_better else -logs, ALIKE)
        for n, value in zip(measured, signed, strict=True):
            deviations[n][name] = float(np.clip(value, -MOST_OF_ONE_MEASURE, MOST_OF_ONE_MEASURE))
    return deviations


def _verdicts(stayed: Sequence[Judgement], left: Sequence[Judgement]) -> list[Verdict]:
    judgements = [*stayed, *left]
    typical = {
        name: float(np.median(values))
        for name in MEASURES
        if (values := [one.scan.quality.values[name] for one in judgements if name in one.deviations])
    }
    return [
        Verdict(
            judgement=one, rank=n + 1, chosen=n < len(stayed), reason=_reason(one, n < len(stayed), typical)
        )
        for n, one in enumerate(judgements)
    ]


def _reason(judgement: Judgement, chosen: bool, typical: Mapping[str, float]) -> str:
    found = {"distance": judgement.homogeneity, **judgement.deviations}
    names = sorted(found, key=lambda name: found[name])
    weak = [name for name in names if found[name] < -REMARKABLE]
    strong = [name for name in reversed(names) if found[name] > REMARKABLE]
    if not chosen:
        # The lowest score has a lowest part, remarkable or not.
        return "; ".join(_told(name, False, judgement, typical) for name in weak or names[:1])
    good = [_told(name, True, judgement, typical) for name in strong]
    bad = [_told(name, False, judgement, typical) for name in weak]
    return "; ".join([*good, *(["in spite of " + ", ".join(bad)] if bad else [])]) or "nothing stands out"


def _told(name: str, good: bool, judgement: Judgement, typical: Mapping[str, float]) -> str:
    if name == "distance":
        what = "intensities like the others'" if good else "intensities unlike the others'"
        value, middle = judgement.distance, judgement.typical_distance
    else:
        what = MEASURES[name].strength if good else MEASURES[name].weakness
        value, middle = judgement.scan.quality.values[name], typical[name]
    label = name if name == "distance" else name.upper()
    return f"{what} ({label} {in_digits(value)}, typical {in_digits(middle)})"
