"""Metrics that several tiers share; none depends on the scale of a method's output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.scans import Mask, Scan, Volume

#: From this share of a tissue on, a voxel counts as one of that tissue alone.
PURE = 0.95


def value_range(values: NDArray[np.floating]) -> float:
    """From the 1st to the 99th percentile."""
    low, high = np.percentile(values, [1, 99])
    return float(high - low)


def tissue_median(scan: Scan, volume: Volume, tissue: str) -> float:
    """Median of the voxels of a simulated scan that hold one tissue alone."""
    return float(np.median(volume[scan.truth[tissue] > PURE]))


def white_grey_contrast(scan: Scan, volume: Volume) -> float:
    """Between the medians of a simulated scan, over the range inside the brain; never negative."""
    white, grey = (tissue_median(scan, volume, name) for name in ("white matter", "grey matter"))
    return abs(white - grey) / value_range(volume[scan.brain])


def gradient_correlation(before: Volume, after: Volume, region: Mask) -> float:
    """Correlation of the steps from voxel to voxel, along all axes, inside a region."""
    steps = [
        np.stack([np.diff(volume, axis=axis)[inside] for volume in (before, after)])
        for axis, inside in enumerate(neighbours(region))
    ]
    before_steps, after_steps = np.concatenate(steps, axis=1)
    return float(stats.pearsonr(before_steps, after_steps).statistic)


def neighbours(region: Mask) -> list[Mask]:
    """Along each axis: the pairs of neighbouring voxels of which both are in the region."""
    pairs = []
    for axis in range(3):
        first = [slice(None)] * 3
        second = [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        pairs.append(region[tuple(first)] & region[tuple(second)])
    return pairs


def fitted(values: Volume, wanted: Volume, *, offset: bool) -> Volume:
    """Values brought nearest to those wanted by a gain, and an offset where there may be one."""
    x, y = values.astype(np.float64), wanted.astype(np.float64)
    if not offset:
        return np.asarray(x * (x @ y) / (x @ x), dtype=np.float32)
    slope, shift = np.polyfit(x, y, 1)
    return np.asarray(slope * x + shift, dtype=np.float32)


def variation(values: Sequence[float]) -> float:
    """Coefficient of variation: standard deviation over mean."""
    return float(np.std(values, ddof=1) / np.mean(values))


def error_db(a: Volume, b: Volume) -> float:
    """The variance of both images pooled over their mean squared difference, dB.

    Unlike `agreement_db` over the 1 to 99 % range, it does not reward heavy tails and punish contrast.
    """
    pooled = np.concatenate([a.ravel(), b.ravel()]).astype(np.float64)
    error = float(np.mean(np.square(a.astype(np.float64) - b)))
    return float(10 * np.log10(pooled.var() / error)) if error > 0 else math.inf
