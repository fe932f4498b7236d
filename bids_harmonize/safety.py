"""What an edit did to an image, and how familiar the image was to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.grid import KNOTS

# Steps below this share of the bright value are taken for noise, not for an edge.
EDGE = 0.02
# What is darker than this share of the bright value is taken for background.
FOREGROUND = 0.1
# Planes of a large volume that are looked at: enough for shares and percentiles, and bounded in time.
LARGEST_SAMPLE = 2_000_000


def summarize_edit(before: NDArray[np.float32], after: NDArray[np.float32], scale: float) -> dict[str, Any]:
    """Numbers that describe an edit.

    Parameters
    ----------
    before, after
        The image and its harmonized version, of the same shape.
    scale
        The bright value of the image before (`image.intensity_scale`).

    Returns
    -------
    dict
        ``Gain``: median of after/before over the foreground; its range and that of its central 98 %,
        relative to the median. ``OrderViolations``: pairs of neighbouring voxels whose order is reversed
        although they differ by more than noise, and how many such edges were looked at, in what planes.
    """
    step = max(1, round(before.size / LARGEST_SAMPLE))
    before, after = before[..., ::step], after[..., ::step]
    return {
        "Gain": _gain(before, after, scale),
        "OrderViolations": _order_violations(before, after, scale) | {"PlanesSampled": f"1 of {step}"},
    }


def distribution_distance(features: NDArray[np.float32], card: Mapping[str, Sequence[float]]) -> float:
    """How far an input lies from those a model was trained on.

    Root mean square, over the cumulative histogram of the foreground, of the deviation from the training
    inputs' mean in units of their standard deviation; about 1 for a typical training input.
    """
    mean, deviation = (np.asarray(card[key])[KNOTS:] for key in ("Mean", "StandardDeviation"))
    used = deviation > 1e-3
    return float(np.sqrt(np.mean(np.square((features[KNOTS:][used] - mean[used]) / deviation[used]))))


def _gain(before: NDArray[np.float32], after: NDArray[np.float32], scale: float) -> dict[str, float]:
    foreground = before > FOREGROUND * scale
    # Of scans in very small units, the gain is more than float32 holds.
    gain = after[foreground].astype(np.float64) / before[foreground]
    if gain.size == 0:
        return {}
    low, p1, median, p99, high = np.percentile(gain, [0, 1, 50, 99, 100]).tolist()
    relative = {"Minimum": low, "Percentile1": p1, "Percentile99": p99, "Maximum": high}
    median = max(median, float(np.finfo(np.float32).tiny))
    return {"Median": _short(median)} | {name: _short(value / median) for name, value in relative.items()}


def _order_violations(
    before: NDArray[np.float32], after: NDArray[np.float32], scale: float
) -> dict[str, int | float]:
    reversed_pairs = looked_at = 0
    # Along the last axis planes may have been left out between neighbours.
    for axis in (0, 1):
        change = np.diff(before, axis=axis)
        edge = np.abs(change) > EDGE * scale
        looked_at += int(np.count_nonzero(edge))
        # Not by the product, which is more than float32 holds where units are large.
        changed = np.diff(after, axis=axis)
        reversed_pairs += int(np.count_nonzero(edge & np.where(change < 0, changed > 0, changed < 0)))
    return {"Pairs": reversed_pairs, "Edges": looked_at}


def _short(value: float) -> float:
    return float(f"{value:.5g}")
