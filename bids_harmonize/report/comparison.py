"""What all scans of a suffix say together: distances, outliers, and whether sites can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.bids.sites import Sites
from bids_harmonize.distribution import TISSUES, WHEN, Distribution
from bids_harmonize.metrics import Comparison, compare_sites, robust_deviations
from bids_harmonize.probe import Probed, probe_sites
from bids_harmonize.report.results import Result

Array = NDArray[np.float64]

# Iglewicz & Hoaglin 1993, "How to Detect and Handle Outliers".
REMARKABLE = 3.5
# Of fewer, none is told to be unlike the others.
LEAST_SCANS = 6
# Share of scans with a brain from which on the few others are left out.
ENOUGH_BRAINS = 0.9
# Scans that differ by less are alike, however equal all the others are: of distances, and of logarithms.
ALIKE, ALIKE_SHARE = 0.01, 0.02


@dataclass(frozen=True, kw_only=True)
class Group:
    """The scans of a suffix, and where they come from.

    Attributes
    ----------
    results
        One per scan.
    sites
        Their sites, in the same order.
    """

    results: Sequence[Result]
    sites: Sites

    @cached_property
    def in_brain(self) -> bool:
        """Whether scans are compared inside the brain: where nearly all have one, or not all have a head.

        Otherwise they are compared in all but the air, in which the field of view has a part.
        """
        images = [result.after for result in self.results if result.after]
        found = sum(image.brain is not None for image in images)
        mixed = len({image.stripped for image in images}) > 1
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
    def comparisons(self) -> dict[str, Comparison]:
        """Before and after, of the scans in `compared`; empty where there are none."""
        labels = [self.sites.labels[n] for n in self.compared]
        return {when: compare_sites(curves, labels) for when, curves in self.curves.items()}

    @cached_property
    def curves(self) -> dict[str, Array]:
        """Quantile functions before and after, ``(compared, levels)``; empty where there are none."""
        if not self.compared:
            return {}
        return {
            when: np.array([self._curve(image_of(self.results[n], when)) for n in self.compared])
            for when in WHEN
        }

    @cached_property
    def probes(self) -> dict[str, Probed]:
        """The site probe before and after; empty where there are too few people or sites."""
        labels = [self.sites.labels[n] for n in self.compared]
        people = [self.results[n].participant for n in self.compared]
        probed = {when: probe_sites(curves, labels, people) for when, curves in self.curves.items()}
        return {when: found for when, found in probed.items() if found is not None}

    @cached_property
    def distances(self) -> dict[str, Array]:
        """Distance of every scan to all together, before and after; not a number where it is not compared."""
        found = {when: np.full(len(self.results), np.nan) for when in WHEN}
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
                (self.distances["After"], ALIKE, "intensities unlike the other scans'", None),
                (
                    np.log(self.medians(TISSUES[0], "After")),
                    ALIKE_SHARE,
                    "bright white matter",
                    "dark white matter",
                ),
                (np.log(self.ratios("After")), ALIKE_SHARE, "high grey/white ratio", "low grey/white ratio"),
            )
        for values, least, high, low in measured:
            known = np.flatnonzero(np.isfinite(values))
            if len(known) < LEAST_SCANS:
                continue
            for n, deviation in zip(known, robust_deviations(values[known], least), strict=True):
                said = high if deviation > REMARKABLE else low if deviation < -REMARKABLE else None
                if said:
                    reasons[n].append(f"{said} (z {deviation:+.1f})")
        return reasons

    def _curve(self, image: Distribution | None) -> Array | None:
        if image is None:
            return None
        return image.brain if self.in_brain else image.foreground


def image_of(result: Result, when: str) -> Distribution | None:
    """The intensities before or after."""
    return result.before if when == "Before" else result.after
