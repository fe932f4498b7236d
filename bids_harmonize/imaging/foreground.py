"""Where in a volume something was scanned, and how bright it is there.

Scanners and programs put more or less air around a head. What is measured inside the box of the foreground
does not depend on that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from bids_harmonize.imaging.intensity import SCALE_SAMPLE, foreground_percentile, intensity_scale
from bids_harmonize.imaging.types import Mask, Voxels

# A plane belongs to the box if at least this much of it is brighter than this share of the bright value.
MIN_PLANE_MM2 = 200.0
BRIGHT_SHARE = 0.1
# Air that is kept around the foreground.
MARGIN_MM = 8.0
# The box and the bright value inside it depend on each other; both settle after one or two rounds.
MAX_ROUNDS = 5


@dataclass(frozen=True)
class Box:
    """Voxels from `start` up to `stop` along each axis; it may reach beyond the volume."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Self:
        """The box that is a whole volume."""
        return cls((0, 0, 0), (shape[0], shape[1], shape[2]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        x, y, z = (high - low for low, high in zip(self.start, self.stop, strict=True))
        return x, y, z

    def enlarged(self, shape: Sequence[int]) -> Self:
        """The box with as many voxels as `shape` says, half of those it lacks on either side."""
        start = [low - (n - m) // 2 for low, n, m in zip(self.start, shape, self.shape, strict=True)]
        x, y, z = start
        return type(self)((x, y, z), (x + shape[0], y + shape[1], z + shape[2]))

    def within(self, shape: Sequence[int], steps: Sequence[int] = (1, 1, 1)) -> tuple[slice, ...]:
        """The part that lies inside a volume, every `steps` voxels counted from the start of the box."""
        return tuple(
            slice(low % step if low < 0 else low, min(high, n), step)
            for low, high, n, step in zip(self.start, self.stop, shape, steps, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Foreground:
    """The box of what was scanned, and its bright value (see `intensity_scale`)."""

    box: Box
    scale: float

    @classmethod
    def of(cls, voxels: Voxels, zooms: Sequence[float]) -> Self:
        """Find the foreground.

        Parameters
        ----------
        voxels
            ``(x, y, z)``, finite, not negative, not all 0.
        zooms
            Voxel size in mm.
        """
        scale = intensity_scale(voxels)
        box = _box(voxels, zooms, scale)
        for _ in range(MAX_ROUNDS):
            scale = _scale_inside(voxels, box)
            last, box = box, _box(voxels, zooms, scale)
            if box == last:
                break
        return cls(box=box, scale=scale)


def _scale_inside(voxels: Voxels, box: Box) -> float:
    stride = max(1, round((math.prod(box.shape) / SCALE_SAMPLE) ** (1 / 3)))
    steps = [min(stride, n) for n in box.shape]
    sample = voxels[box.within(voxels.shape, steps)]
    if not np.any(sample > 0):
        sample = voxels[box.within(voxels.shape)]
    return foreground_percentile(sample[sample > 0])


def _box(voxels: Voxels, zooms: Sequence[float], scale: float) -> Box:
    bright = _without_specks(voxels > np.float32(BRIGHT_SHARE * scale))
    start, stop = [], []
    for axis, zoom in enumerate(zooms):
        others = tuple(k for k in range(3) if k != axis)
        plane_mm2 = math.prod(zooms[k] for k in others)
        filled = np.flatnonzero(np.count_nonzero(bright, axis=others) * plane_mm2 >= MIN_PLANE_MM2)
        if not filled.size:
            return Box.whole(voxels.shape)
        margin = round(MARGIN_MM / zoom)
        start.append(int(filled[0]) - margin)
        stop.append(int(filled[-1]) + 1 + margin)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _without_specks(bright: Mask) -> Mask:
    """Voxels in a row of three or more along any axis: noise in the air is seldom that long."""
    kept = np.zeros_like(bright)
    for axis, n in enumerate(bright.shape):
        if n < 3:
            continue
        low, middle, high = (
            (slice(None),) * axis + (extent,) for extent in (slice(0, -2), slice(1, -1), slice(2, None))
        )
        kept[middle] |= bright[low] & bright[middle] & bright[high]
    return kept if max(bright.shape) >= 3 else bright
