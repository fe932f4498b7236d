"""What all scans of a suffix say together: distances, outliers, and whether a classifier finds the site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bids_harmonize.bids.grouping import Grouping
from bids_harmonize.measures.robust import robust_deviations
from bids_harmonize.measures.scan_intensities import BEFORE_AND_AFTER, TISSUES, IntensityProfile
from bids_harmonize.measures.site_classifier import SiteClassification, classify_sites
from bids_harmonize.measures.site_distance import SiteDistances, site_distances
from bids_harmonize.measures.types import Array
from bids_harmonize.results.pool import Pool
from bids_harmonize.results.reading import Result

# Iglewicz & Hoaglin 1993, "How to Detect and Handle Outliers".
OUTLIER_Z = 3.5
# Among fewer scans, none is called an outlier.
MIN_SCANS = 6
# If a brain was found in this share of the scans, the few others are left out.
ENOUGH_BRAINS = 0.9
# Least spread of distances, and of logarithms, that deviations are measured in: where all scans but one are
# equal, that one is no outlier for a difference that nobody would see.
MIN_SPREAD, MIN_LOG_SPREAD = 0.01, 0.02


@dataclass(frozen=True, kw_only=True)
class Group:
    """The scans of a suffix, and where they come from.

    Attributes
    ----------
    results
        One result per scan.
    sites
        Their sites, in the same order.
    pools
        The pools of those that share an edit.
    """

    results: Sequence[Result]
    sites: Grouping
    pools: Sequence[Pool] = ()

    @cached_property
    def in_brain(self) -> bool:
        """Whether scans are compared inside the brain: nearly all have one, or some are skull-stripped.

        Otherwise they are compared in the foreground, on which the field of view has an influence.
        """
        images = [result.after for result in self.results if result.after]
        found = sum(image.brain is not None for image in images)
        mixed = len({result.provenance.intensities.stripped for result in self.results if result.after}) > 1
        return mixed or found >= ENOUGH_BRAINS * len(images)

    @cached_property
    def compared(self) -> list[int]:
        """Scans of which the intensities before and after are known, where all are compared."""
        return [
            n
            for n, result in enumerate(self.results)
            if all(self._curve(image) is not None for image in (result.before, result.after))
        ]

    @cached_property
    def comparisons(self) -> dict[str, SiteDistances]:
        """Before and after, of the scans in `compared`; empty where there are none."""
        labels = [self.sites.labels[n] for n in self.compared]
        return {when: site_distances(curves, labels) for when, curves in self.curves.items()}

    @cached_property
    def curves(self) -> dict[str, Array]:
        """Quantile functions before and after, ``(compared, levels)``; empty where there are none."""
        if not self.compared:
            return {}
        return {
            when: np.array([self._curve(image_of(self.results[n], when)) for n in self.compared])
            for when in BEFORE_AND_AFTER
        }

    @cached_property
    def classifications(self) -> dict[str, SiteClassification]:
        """How well a classifier finds the site, before and after; empty for too few participants or sites."""
        labels = [self.sites.labels[n] for n in self.compared]
        participants = [self.results[n].participant for n in self.compared]
        found = {when: classify_sites(curves, labels, participants) for when, curves in self.curves.items()}
        return {when: sites for when, sites in found.items() if sites is not None}

    @cached_property
    def unmeasured(self) -> list[int]:
        """Harmonized scans whose sidecars hold no intensities."""
        return [n for n, result in enumerate(self.results) if result.harmonized and result.after is None]

    @cached_property
    def without_brain(self) -> list[int]:
        """Harmonized scans that are not compared because no brain was found in them."""
        left_out = {*self.unmeasured, *self.compared}
        return [n for n, result in enumerate(self.results) if result.harmonized and n not in left_out]

    @cached_property
    def distances(self) -> dict[str, Array]:
        """Distance of every scan to all together, before and after; not a number where it is not compared."""
        found = {when: np.full(len(self.results), np.nan) for when in BEFORE_AND_AFTER}
        for when, comparison in self.comparisons.items():
            found[when][self.compared] = comparison.to_pooled
        return found

    def medians(self, tissue: str, when: str) -> Array:
        """The median of a tissue in every scan, of `TISSUES`; not a number where it was not measured."""
        images = [image_of(result, when) for result in self.results]
        return np.array([image.tissues.get(tissue, np.nan) if image else np.nan for image in images])

    def ratios(self, when: str) -> Array:
        """Grey over white matter in every scan."""
        white, grey, _ = (self.medians(tissue, when) for tissue in TISSUES)
        return np.divide(grey, white, out=np.full(len(white), np.nan), where=white > 0)

    @cached_property
    def outliers(self) -> list[list[str]]:
        """Per scan, in what the harmonized image is unlike the others; nothing for most."""
        reasons: list[list[str]] = [[] for _ in self.results]
        with np.errstate(divide="ignore"):
            measured = (
                (self.distances["After"], MIN_SPREAD, "intensities unlike the other scans'", None),
                (
                    np.log(self.medians(TISSUES[0], "After")),
                    MIN_LOG_SPREAD,
                    "bright white matter",
                    "dark white matter",
                ),
                (
                    np.log(self.ratios("After")),
                    MIN_LOG_SPREAD,
                    "high grey/white ratio",
                    "low grey/white ratio",
                ),
            )
        for values, min_spread, high, low in measured:
            known = np.flatnonzero(np.isfinite(values))
            if len(known) < MIN_SCANS:
                continue
            for n, deviation in zip(known, robust_deviations(values[known], min_spread), strict=True):
                reason = high if deviation > OUTLIER_Z else low if deviation < -OUTLIER_Z else None
                if reason:
                    reasons[n].append(f"{reason} (z {deviation:+.1f})")
        return reasons

    def _curve(self, image: IntensityProfile | None) -> Array | None:
        if image is None:
            return None
        return image.brain if self.in_brain else image.foreground


def image_of(result: Result, when: str) -> IntensityProfile | None:
    """The intensities before or after."""
    return result.before if when == "Before" else result.after
