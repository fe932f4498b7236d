"""Distances between images, between quantile functions, and between sites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Makes a median absolute deviation comparable to a standard deviation.
MAD_TO_SIGMA = 1.4826
# Jeffreys: of a share, Beta(1/2, 1/2).
PRIOR = 0.5
DRAWS = 4000


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scans and sites compared by quantile functions.

    All distances are mean differences of quantile functions over the span of `pooled`, so neither the unit
    nor an offset that all scans share has a part in them.

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


def compare_sites(curves: Array, sites: Sequence[str | None]) -> Comparison:
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
    return Comparison(
        sites=names,
        pooled=pooled,
        medians=medians,
        to_pooled=np.abs(curves - pooled).mean(axis=1) / span,
        to_own_site=to_own_site,
        between=np.abs(medians[:, None] - medians[None]).mean(axis=2) / span,
    )


def robust_deviations(values: Array, least: float) -> Array:
    """Deviations from the median, in robust standard deviations but at least `least` (Hampel 1974)."""
    centred = values - np.median(values)
    return centred / max(MAD_TO_SIGMA * float(np.median(np.abs(centred))), least)


def balanced_accuracy(true: Sequence[str], found: Sequence[str]) -> tuple[float, Array]:
    """Mean over the classes of the share of scans that were recognized, and draws from its posterior.

    The posterior of every class's share is a beta distribution (Brodersen et al. 2010,
    doi:10.1109/ICPR.2010.764; here with Jeffreys' prior): honest about classes of two scans, which a
    bootstrap is not.
    """
    rng = np.random.default_rng(0)
    hits = [np.array([f == t for t, f in zip(true, found, strict=True) if t == c]) for c in sorted(set(true))]
    draws = [rng.beta(PRIOR + hit.sum(), PRIOR + (~hit).sum(), DRAWS) for hit in hits]
    return float(np.mean([hit.mean() for hit in hits])), np.mean(draws, axis=0)


def agreement_db(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Agreement of two sets of corresponding voxels, dB.

    10 log10(1 / mean(((a - b) / r)^2)), where r is the 1 to 99 % range of both together, so that no method
    gains by the scale of its output.
    """
    pooled = np.concatenate([a.ravel(), b.ravel()])
    low, high = np.percentile(pooled, [1, 99])
    error = (a.astype(np.float64) - b) / (high - low)
    mean = float(np.mean(np.square(error)))
    return -10 * math.log10(mean) if mean > 0 else math.inf
