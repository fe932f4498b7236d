"""Maps of what harmonization did to each voxel: the gain relative to its median."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.imaging.types import Volume
from bids_harmonize.model.edit_summary import FOREGROUND
from bids_harmonize.report.participant.image_view import ImageView
from bids_harmonize.report.participant.manifest import EDIT, FigureInputs, Plane
from bids_harmonize.report.participant.slices import slice_of_plane, write_picture

# Blue is darker and red brighter than by the overall factor; told apart with any kind of colour vision.
COLOUR_MAP = "RdBu_r"
# An odd number, so that one of the shades is no change; what is background is transparent.
SHADES = 255
# Percentage of the voxels of the map that lie within its colours.
PERCENTILE = 99.0
# Percent at the ends of the colours; nothing can be darkened by more than the last.
LIMITS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


def write_edit_maps(
    scan: FigureInputs, planes: Sequence[Plane], before: ImageView, after: ImageView
) -> float:
    """Write a map of every plane, in percent; return the limit of their colours."""
    foreground = FOREGROUND * before.scale
    overall = scan.gain or _median_gain(before.volume, after.volume, foreground)
    changes = []
    for plane in planes:
        first, second = (slice_of_plane(view.volume, plane).astype(np.float64) for view in (before, after))
        inside = first > foreground
        change = np.divide(100 * second, overall * first, out=np.full_like(first, np.nan), where=inside) - 100
        changes.append(change)
    sizes = np.concatenate([np.abs(change[np.isfinite(change)]) for change in changes])
    limit = _colour_limit(float(np.percentile(sizes, PERCENTILE))) if sizes.size else LIMITS[0]
    for plane, change in zip(planes, changes, strict=True):
        write_picture(scan.picture(EDIT, plane.name), _coloured_png(change, limit))
    return limit


@cache
def edit_ramp(stops: int = 11) -> tuple[str, ...]:
    """The colours from darkest to brightest, for a colour bar."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return tuple(to_hex(colormaps[COLOUR_MAP](place)) for place in np.linspace(0, 1, stops))


def _median_gain(before: Volume, after: Volume, foreground: float) -> float:
    inside = before > foreground
    return float(np.median(after[inside] / before[inside]))


def _colour_limit(change: float) -> float:
    """The next of `LIMITS`, or the last."""
    return next((limit for limit in LIMITS if limit >= change), LIMITS[-1])


def _coloured_png(change: NDArray[np.float64], limit: float) -> bytes:
    """A slice of the map, one byte a pixel; what is not foreground is transparent."""
    from PIL import Image

    place = np.nan_to_num(np.clip(0.5 + change.T[::-1] / (2 * limit), 0, 1))
    pixels = np.where(np.isnan(change.T[::-1]), 0, 1 + np.rint(place * (SHADES - 1)))
    picture = Image.fromarray(pixels.astype(np.uint8), mode="P")
    picture.putpalette(b"\0\0\0" + b"".join(bytes.fromhex(colour[1:]) for colour in edit_ramp(SHADES)))
    file = io.BytesIO()
    picture.save(file, format="png", transparency=0)
    return file.getvalue()
