"""What an edit did to an image, and how familiar the image was to the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.files.json_fields import JsonFields, json_key
from bids_harmonize.files.rounding import round_significant
from bids_harmonize.files.schema import is_float32, is_float32_ratio, is_number, is_text
from bids_harmonize.model.card_entries import InputDistribution

# Steps below this share of the bright value are taken for noise, not for an edge.
EDGE_CONTRAST = 0.02
# What is darker than this share of the bright value is taken for background.
FOREGROUND = 0.1
# Planes of a large volume that are looked at: enough for shares and percentiles, and bounded in time.
MAX_SAMPLE = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Gain(JsonFields):
    """Intensity after over intensity before, over the foreground; all None where there is none.

    Attributes
    ----------
    median
        The overall factor.
    minimum, percentile_1, percentile_99, maximum
        Relative to the median.
    """

    median: float | None = json_key("Median", is_float32_ratio)
    minimum: float | None = json_key("Minimum", is_float32_ratio)
    percentile_1: float | None = json_key("Percentile1", is_float32_ratio)
    percentile_99: float | None = json_key("Percentile99", is_float32_ratio)
    maximum: float | None = json_key("Maximum", is_float32_ratio)


@dataclass(frozen=True, kw_only=True)
class OrderViolations(JsonFields):
    """Neighbouring voxels whose order of brightness was reversed.

    Attributes
    ----------
    pairs, edges
        How many pairs of them there are, of how many that differ by more than noise.
    planes_sampled
        Which planes were looked at, as in ``1 of 4``.
    """

    pairs: int | None = json_key("Pairs", is_float32)
    edges: int | None = json_key("Edges", is_float32)
    planes_sampled: str | None = json_key("PlanesSampled", is_text)


@dataclass(frozen=True, kw_only=True)
class Edit(JsonFields):
    """What harmonization did to an image; what is not known is None.

    Attributes
    ----------
    distance_to_training
        Deviation of the input from the training inputs (`distribution_distance`).
    intensity_scale
        The bright value of the image before (`imaging.intensity.intensity_scale`).
    replaced, negative
        Voxels set to 0 because they were not finite, and because they were negative.
    """

    gain: Gain = json_key("Gain", Gain, if_empty={})
    order_violations: OrderViolations = json_key("OrderViolations", OrderViolations)
    distance_to_training: float | None = json_key("DistanceToTrainingDistribution", is_float32)
    intensity_scale: float | None = json_key("IntensityScale", is_number)
    replaced: int | None = json_key("NonFiniteVoxelsSetToZero", is_number)
    negative: int | None = json_key("NegativeVoxelsSetToZero", is_number)


def summarize_edit(before: NDArray[np.float32], after: NDArray[np.float32], scale: float) -> Edit:
    """Measure what an edit did to the intensities of an image.

    Parameters
    ----------
    before, after
        The image and its harmonized version, of the same shape.
    scale
        The bright value of the image before (`imaging.intensity.intensity_scale`).

    Returns
    -------
    Edit
        Its gain, its order violations and the scale.
    """
    step = max(1, round(before.size / MAX_SAMPLE))
    before, after = before[..., ::step], after[..., ::step]
    return Edit(
        gain=_gain(before, after, scale),
        order_violations=_order_violations(before, after, scale, planes_sampled=f"1 of {step}"),
        intensity_scale=scale,
    )


def distribution_distance(features: NDArray[np.float32], inputs: InputDistribution) -> float:
    """How far an input lies from those a model was trained on.

    Root mean square, over the cumulative histogram of the foreground, of the deviation from the training
    inputs' mean in units of their standard deviation; about 1 for a typical training input.
    """
    # The density and the cumulative histogram, of as many knots each.
    half = features.size // 2
    mean, deviation = (np.asarray(values)[half:] for values in (inputs.mean, inputs.standard_deviation))
    used = deviation > 1e-3
    return float(np.sqrt(np.mean(np.square((features[half:][used] - mean[used]) / deviation[used]))))


def _gain(before: NDArray[np.float32], after: NDArray[np.float32], scale: float) -> Gain:
    foreground = before > FOREGROUND * scale
    # In scans with very small units the gain is more than float32 holds.
    gain = after[foreground].astype(np.float64) / before[foreground]
    if gain.size == 0:
        return Gain()
    low, p1, median, p99, high = np.percentile(gain, [0, 1, 50, 99, 100]).tolist()
    median = max(median, float(np.finfo(np.float32).tiny))
    return Gain(
        median=round_significant(median, 5),
        minimum=round_significant(low / median, 5),
        percentile_1=round_significant(p1 / median, 5),
        percentile_99=round_significant(p99 / median, 5),
        maximum=round_significant(high / median, 5),
    )


def _order_violations(
    before: NDArray[np.float32], after: NDArray[np.float32], scale: float, *, planes_sampled: str
) -> OrderViolations:
    reversed_pairs = edges = 0
    # Along the last axis planes may have been left out between neighbours.
    for axis in (0, 1):
        change = np.diff(before, axis=axis)
        edge = np.abs(change) > EDGE_CONTRAST * scale
        edges += int(np.count_nonzero(edge))
        # The product of both changes may be more than float32 holds where units are large.
        changed = np.diff(after, axis=axis)
        reversed_pairs += int(np.count_nonzero(edge & np.where(change < 0, changed > 0, changed < 0)))
    return OrderViolations(pairs=reversed_pairs, edges=edges, planes_sampled=planes_sampled)
