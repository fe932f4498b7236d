"""Distances of scans from all scans and from their own site, and of sites from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_harmonize.measures.types import Array


@dataclass(frozen=True, kw_only=True)
class SiteDistances:
    """Scans and sites compared by quantile functions.

    All distances are mean absolute differences of quantile functions over the span of `pooled`, so that
    they depend neither on the unit nor on an offset that all scans share.

    Attributes
    ----------
    sites
        Names, sorted.
    pooled
        Median quantile function of all scans, ``(levels,)``.
    medians
        Median quantile function of each site, ``(sites, levels)``.
    to_pooled
        Distance of each scan to `pooled`, ``(scans,)``.
    to_own_site
        Distance of each scan to the median of its site, ``(scans,)``; not a number for scans of no site, and
        for those alone in theirs.
    between
        Distances of the medians of the sites, ``(sites, sites)``.
    """

    sites: tuple[str, ...]
    pooled: Array
    medians: Array
    to_pooled: Array
    to_own_site: Array
    between: Array


def site_distances(curves: Array, sites: Sequence[str | None]) -> SiteDistances:
    """Compare scans and sites.

    Parameters
    ----------
    curves
        Quantile functions, ``(scans, levels)``; at least one.
    sites
        The site of each scan; None where it is not known.
    """
    pooled = np.median(curves, axis=0)
    span = float(pooled[-1] - pooled[0]) or 1.0
    names = tuple(sorted({site for site in sites if site is not None}))
    members = {name: [n for n, site in enumerate(sites) if site == name] for name in names}
    medians = np.array([np.median(curves[own], axis=0) for own in members.values()])
    medians = medians.reshape(len(names), curves.shape[1])
    to_own_site = np.full(len(curves), np.nan)
    for own, median in zip(members.values(), medians, strict=True):
        if len(own) > 1:
            to_own_site[own] = np.abs(curves[own] - median).mean(axis=1) / span
    return SiteDistances(
        sites=names,
        pooled=pooled,
        medians=medians,
        to_pooled=np.abs(curves - pooled).mean(axis=1) / span,
        to_own_site=to_own_site,
        between=np.abs(medians[:, None] - medians[None]).mean(axis=2) / span,
    )
