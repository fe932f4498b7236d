"""What the scans of a site have in common, before and after: the numbers behind the group's page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_harmonize.measures.quantiles import QUANTILES
from bids_harmonize.measures.scan_intensities import BEFORE_AND_AFTER
from bids_harmonize.measures.site_distance import SiteDistances
from bids_harmonize.measures.types import Array
from bids_harmonize.results.group_analysis import Group

DENSITY_BINS = 72
# Standard deviation in bins: the steps of quantile functions must not be seen.
DENSITY_BLUR = 1.2
# Share of the scans whose highest quantile lies within the bins.
TOP_QUANTILE = 0.95


@dataclass(frozen=True, kw_only=True)
class SiteIntensities:
    """How often each intensity occurs in the scans of a site.

    Attributes
    ----------
    densities
        Densities of the scans, ``(scans, DENSITY_BINS)``, from `intensity_densities`.
    median
        Median of all intensities of the site.
    distance
        Mean distance of its scans to all scans together.
    """

    densities: Array
    median: float
    distance: float


@dataclass(frozen=True, kw_only=True)
class GroupIntensities:
    """How often each intensity occurs in the images before, or in those after.

    Attributes
    ----------
    top
        Upper end of the bins of all densities; the lower end is 0.
    mean
        Mean density of all scans, ``(DENSITY_BINS,)``.
    sites
        Intensities of each site, by its name.
    """

    top: float
    mean: Array
    sites: Mapping[str, SiteIntensities]


def group_intensities(group: Group, when: str, members: Mapping[str, Sequence[int]]) -> GroupIntensities:
    """The intensities of all scans and of some sites.

    Parameters
    ----------
    when
        ``Before`` or ``After``.
    members
        Scans of each site, as places in ``group.compared``; at least one.
    """
    curves, distances = group.curves[when], group.comparisons[when].to_pooled
    top = round_up(float(np.quantile(curves[:, -1], TOP_QUANTILE)))
    densities = intensity_densities(curves, top)
    return GroupIntensities(
        top=top,
        mean=densities.mean(axis=0),
        sites={
            name: SiteIntensities(
                densities=densities[own],
                median=float(np.median(curves[own])),
                distance=float(np.mean(distances[own])),
            )
            for name, own in members.items()
        },
    )


def intensity_densities(curves: Array, top: float) -> Array:
    """How often each intensity occurs, from quantile functions at `QUANTILES`.

    Parameters
    ----------
    curves
        ``(scans, levels)``, rising.
    top
        Upper end of the bins.

    Returns
    -------
    Array
        ``(scans, DENSITY_BINS)``: share of the voxels in equal bins between 0 and `top`, smoothed.
    """
    edges = np.linspace(0.0, top, DENSITY_BINS + 1)
    shares = np.array([np.diff(np.interp(edges, curve, QUANTILES)) for curve in curves])
    return np.asarray(ndimage.gaussian_filter1d(shares, DENSITY_BLUR, axis=1, mode="nearest"))


def members_of_largest_sites(labels: Sequence[str | None], count: int) -> dict[str, list[int]]:
    """Places of the scans of the sites with most scans, sites in the order of their names."""
    sizes = Counter(label for label in labels if label)
    largest = sorted(name for name, _ in sizes.most_common(count))
    return {name: [n for n, label in enumerate(labels) if label == name] for name in largest}


def participants_per_site(group: Group) -> dict[str, int]:
    """How many participants of each site have scans that are compared, in the order of the sites' names."""
    pairs = {(group.sites.labels[n], group.results[n].participant) for n in group.compared}
    return dict(sorted(Counter(site for site, _ in pairs if site).items()))


def output_unit(group: Group) -> float | None:
    """The reference intensity of the harmonized images; None where it is not one and the same."""
    scales = (result.provenance.output_scale.unit for result in group.results if result.harmonized)
    units = {unit for unit in scales if unit is not None}
    return units.pop() if len(units) == 1 else None


def between_sites(distances: SiteDistances) -> float:
    """Mean distance of two sites, of which there are at least two."""
    return float(distances.between[np.triu_indices(len(distances.sites), 1)].mean())


def within_site(distances: SiteDistances) -> float | None:
    """Mean distance of a scan to the median of its site; None where no site has two scans."""
    own = distances.to_own_site[np.isfinite(distances.to_own_site)]
    return float(own.mean()) if own.size else None


def ratio_variation(group: Group) -> dict[str, float] | None:
    """Coefficient of variation of the grey/white ratio, before and after; None where it is not known."""
    variations = {when: _variation(group.ratios(when)[group.compared]) for when in BEFORE_AND_AFTER}
    return variations if all(map(np.isfinite, variations.values())) else None


def _variation(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1) / known.mean()) if known.size > 1 else np.nan


def known_median(values: Array) -> float:
    """Median of those that are numbers; not a number where none is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else np.nan


def round_up(value: float) -> float:
    """The next number of two digits, for the end of an axis; 1 for what is not positive."""
    if value <= 0:
        return 1.0
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.ceil(value / step) * step)
