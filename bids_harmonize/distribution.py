"""The intensities of a scan before and after, in numbers small enough for a sidecar.

The group level compares sites by them alone, without any image. They are measured on means of blocks of about
2 mm, where masks are as exact as they get; both images have the same masks, found on the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.anatomy import (
    Mask,
    Volume,
    find_brain,
    head_mask,
    is_stripped,
    tissues,
)
from bids_harmonize.errors import BadData
from bids_harmonize.reference import QUANTILES

WORKING_MM = 2.0
TISSUES = ("WhiteMatter", "GreyMatter", "CSF")
WHEN = ("Before", "After")
LEVELS = {"First": float(QUANTILES[0]), "Last": float(QUANTILES[-1]), "Count": len(QUANTILES)}

Curve = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One image of a scan, as its sidecar describes it.

    Attributes
    ----------
    foreground, brain
        Quantile functions at `QUANTILES`; of the brain None where none was found.
    tissues
        Medians of `TISSUES`; empty where no brain was found.
    stripped
        Whether nothing but the brain is left of a head.
    """

    foreground: Curve
    brain: Curve | None
    tissues: Mapping[str, float]
    stripped: bool


def describe_distribution(
    before: Volume,
    after: Volume | None,
    scale: float,
    zooms: Sequence[float],
    *,
    modality: str,
    head: bool,
) -> dict[str, Any]:
    """The ``Intensities`` of a sidecar.

    Parameters
    ----------
    before
        The scan, (x, y, z), finite and not negative.
    after
        Its harmonized version; None if it was passed through.
    scale
        The bright value of the scan (`image.intensity_scale`), in units of which `before` is described.
    zooms
        Voxel size in mm.
    modality
        ``T1w`` or ``T2w``: in the first, white matter is the brightest tissue.
    head
        Whether there should be a brain.

    Returns
    -------
    dict
        ``Foreground`` and ``Brain``: quantile functions inside the head (or whatever the body part is) and
        inside the brain. ``Tissues``: medians. Each ``Before`` and ``After``, or None where it could not be
        measured; where no brain was found, ``NoBrain`` is the reason.
    """
    steps = [max(1, min(round(WORKING_MM / zoom), n)) for zoom, n in zip(zooms, before.shape, strict=True)]
    coarse_zooms = [zoom * step for zoom, step in zip(zooms, steps, strict=True)]
    coarse = {"Before": block_means(before, steps) / np.float32(scale)}
    if after is not None:
        coarse["After"] = block_means(after, steps)
    inside = head_mask(coarse["Before"], scale=1.0)
    described: dict[str, Any] = {
        "Levels": LEVELS,
        "SkullStripped": head and is_stripped(coarse["Before"]),
        "Foreground": None,
        "Brain": None,
        "Tissues": None,
    }
    if not inside.any():
        return described | {"NoBrain": "nothing is brighter than air in blocks of 2 mm"}
    described["Foreground"] = {when: _quantiles(volume, inside) for when, volume in coarse.items()}
    try:
        brain, masks = _brain(coarse["Before"], coarse_zooms, modality=modality, head=head)
    except BadData as reason:
        return described | {"NoBrain": str(reason)}
    return described | {
        "Brain": {when: _quantiles(volume, brain) for when, volume in coarse.items()},
        "Tissues": {
            when: {
                name: _short(float(np.median(volume[mask])))
                for name, mask in zip(TISSUES, masks, strict=True)
            }
            for when, volume in coarse.items()
        },
    }


def read_distribution(described: object, when: str) -> Distribution | None:
    """What `describe_distribution` said of the image ``Before`` or ``After``; None where it said nothing."""
    if not isinstance(described, Mapping) or described.get("Levels") != LEVELS:
        return None
    foreground = _curve(described.get("Foreground"), when)
    if foreground is None:
        return None
    return Distribution(
        foreground=foreground,
        brain=_curve(described.get("Brain"), when),
        tissues=_medians(described.get("Tissues"), when),
        stripped=described.get("SkullStripped") is True,
    )


def block_means(volume: Volume, steps: Sequence[int]) -> Volume:
    """Means over blocks of so many voxels; what is left over at the ends is left out."""
    whole = [n // step * step for n, step in zip(volume.shape, steps, strict=True)]
    # As volumes from NIfTI lie in memory.
    shape = [n // step for n, step in zip(whole, steps, strict=True)]
    total = np.zeros(shape, dtype=np.float32, order="F")
    share = np.float32(np.prod(steps))
    # Added up piece by piece: no second copy of a large volume. A sum may be more than float32 holds.
    for offset in np.ndindex(*steps):
        piece = tuple(slice(k, n, step) for k, n, step in zip(offset, whole, steps, strict=True))
        total += volume[piece] / share
    return np.ascontiguousarray(total)


def _brain(
    volume: Volume, zooms: Sequence[float], *, modality: str, head: bool
) -> tuple[Mask, tuple[Mask, Mask, Mask]]:
    if not head:
        raise BadData("brains are looked for in heads only")
    bright = modality == "T1w"
    brain = find_brain(volume, zooms, bright=bright)
    masks = tissues(volume, brain, bright=bright)
    if not all(mask.any() for mask in masks):
        raise BadData("no brain was found (its tissues are all alike)")
    return brain, masks


def _quantiles(volume: Volume, region: Mask) -> list[float]:
    return [_short(value) for value in np.quantile(volume[region].astype(np.float64), QUANTILES).tolist()]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _curve(described: object, when: str) -> Curve | None:
    values = described.get(when) if isinstance(described, Mapping) else None
    if not isinstance(values, list) or len(values) != len(QUANTILES):
        return None
    return np.array(values, dtype=np.float64)


def _medians(described: object, when: str) -> dict[str, float]:
    medians = described.get(when) if isinstance(described, Mapping) else None
    return dict(medians) if isinstance(medians, Mapping) and set(medians) == set(TISSUES) else {}
