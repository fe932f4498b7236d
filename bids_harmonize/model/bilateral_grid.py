"""Splat and slice: the bilateral grid between a volume and its tone curves.

The box of the foreground, scaled to a bright value of about 1, is splatted into cells of about 8 mm, each
with a soft histogram of its intensities. The network turns the histograms into one tone curve per cell.
Slicing looks every voxel's own value up in the curves around it: linear in intensity, trilinear in space
(after Chen, Paris and Durand 2007, doi:10.1145/1276377.1276506, and Gharbi et al. 2017,
doi:10.1145/3072959.3073592). What lies outside the box is not seen, and follows the curves of the cells
nearest to it; where the box leaves the volume, there is air.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bids_harmonize.imaging.foreground import Box

CELL_MM = 8.0
# Knots of a curve: intensities from 0 to `MAX_INTENSITY` in equal steps. Brighter voxels follow the last
# segment.
KNOTS = 49
MAX_INTENSITY = 1.6
# Corrupt voxels may hold the largest float; beyond this their product with a slope would not be finite.
MAX_FINITE = 1e30
KNOT_STEP = MAX_INTENSITY / (KNOTS - 1)
# Soft counts are multiples of 1/256, so that float64 sums of them are exact in any order, on any device.
FRACTION_BITS = 8
FRACTIONS = 1 << FRACTION_BITS
# Voxels sliced at once: few enough that their curves stay in the processor's cache.
CHUNK_VOXELS = 250_000


@dataclass(frozen=True)
class Cells:
    """How the `box` of a volume of `shape` voxels is divided: `counts` cells along each axis."""

    shape: tuple[int, int, int]
    counts: tuple[int, int, int]
    box: Box

    @classmethod
    def of_box(cls, box: Box, shape: Sequence[int], zooms: Sequence[float]) -> Self:
        """Cells of about `CELL_MM` for a box of a volume with voxels of `zooms` mm."""
        counts = [max(1, min(n, round(n * zoom / CELL_MM))) for n, zoom in zip(box.shape, zooms, strict=True)]
        return cls((shape[0], shape[1], shape[2]), (counts[0], counts[1], counts[2]), box)

    @classmethod
    def of(cls, shape: Sequence[int], zooms: Sequence[float]) -> Self:
        """Cells of about `CELL_MM` for a whole volume with voxels of `zooms` mm."""
        return cls.of_box(Box.whole(shape), shape, zooms)

    @property
    def window(self) -> tuple[slice, ...]:
        """The part of the box that lies inside the volume."""
        return self.box.within(self.shape)

    def index(self, axis: int) -> Tensor:
        """The cell that holds each voxel of the box along one axis, int64."""
        n, m = self.box.shape[axis], self.counts[axis]
        # The voxel's centre decides, so that a flipped volume has flipped cells.
        return (2 * torch.arange(n) + 1) * m // (2 * n)

    def position(self, axis: int, device: torch.device | str = "cpu") -> Tensor:
        """Centres of the volume's voxels, held inside the centres of the outermost cells.

        They are in units of cells, counted from the centre of the first one.
        """
        n, m = self.box.shape[axis], self.counts[axis]
        offset = torch.arange(self.shape[axis], device=device, dtype=torch.float32) - self.box.start[axis]
        return ((offset + 0.5) * (m / n) - 0.5).clamp(0, m - 1)


def splat(volume: Tensor, cells: Cells, device: torch.device | None = None, unit: float = 1.0) -> Tensor:
    """Soft intensity histogram of every cell.

    Parameters
    ----------
    volume
        Intensities, float32, shape ``cells.shape``.
    device
        Device that counts, a layer of cells at once; None for the volume's own.
    unit
        The intensity that is scaled to 1.

    Returns
    -------
    Tensor
        Counts, float64, shape ``(KNOTS, *cells.counts)``; they sum to the voxels of the box, exactly.
    """
    device = device or volume.device
    x, y, z = (cells.index(axis)[inside] for axis, inside in enumerate(_inside_box(cells)))
    row = (y[:, None] * cells.counts[0] + x[None, :]).to(device)
    thicknesses = torch.bincount(z, minlength=cells.counts[2]).tolist()
    layers = volume[cells.window].permute(2, 1, 0).split(thicknesses)
    rows = cells.counts[0] * cells.counts[1]
    histogram = torch.stack([_histogram(_scaled(layer, device, unit), row, rows) for layer in layers])
    counts = histogram.view(*reversed(cells.counts), KNOTS).permute(3, 2, 1, 0).contiguous()
    counts[0] += _voxels_per_cell(cells, device) - counts.sum(dim=0)
    return counts


def _inside_box(cells: Cells) -> list[slice]:
    """The voxels of the box that lie inside the volume, counted from the start of the box."""
    return [
        slice(part.start - start, part.stop - start)
        for part, start in zip(cells.window, cells.box.start, strict=True)
    ]


def _voxels_per_cell(cells: Cells, device: torch.device) -> Tensor:
    """Voxels of the box in each cell, those beyond the volume included."""
    x, y, z = (torch.bincount(cells.index(axis)).to(device, torch.float64) for axis in range(3))
    return x[:, None, None] * y[:, None] * z


def _scaled(volume: Tensor, device: torch.device, unit: float) -> Tensor:
    # The divisor is a tensor: CUDA would multiply by the reciprocal of a number, with other last digits.
    return volume.to(device) / torch.tensor(unit, dtype=torch.float32, device=device)


def _histogram(layer: Tensor, row: Tensor, rows: int) -> Tensor:
    level = (layer * (FRACTIONS / KNOT_STEP)).round_().clamp_(0, FRACTIONS * (KNOTS - 1)).to(torch.int64)
    fraction = (level & (FRACTIONS - 1)).to(torch.float64)
    # One spare bin takes the upper share (always 0) of voxels at the last knot.
    index = (row * (KNOTS + 1) + (level >> FRACTION_BITS)).flatten()
    size = rows * (KNOTS + 1)
    count = torch.bincount(index, minlength=size).to(torch.float64)
    upper = torch.bincount(index, weights=fraction.flatten(), minlength=size) / FRACTIONS
    histogram = count - upper
    histogram[1:] += upper[:-1]
    return histogram.view(rows, KNOTS + 1)[:, :KNOTS]


def curves_from_slopes(slopes: Tensor) -> Tensor:
    """Tone curves through the origin from the positive slopes of their segments.

    Parameters
    ----------
    slopes
        Shape ``(..., KNOTS - 1, X, Y, Z)``, all positive.

    Returns
    -------
    Tensor
        Values at the knots, shape ``(..., KNOTS, X, Y, Z)``; the first is 0, so background stays background.
    """
    values = torch.cumsum(slopes * KNOT_STEP, dim=-4)
    return F.pad(values, (0, 0, 0, 0, 0, 0, 1, 0))


def slice_points(curves: Tensor, positions: Tensor, values: Tensor) -> Tensor:
    """Look single voxels up in the curves; differentiable in the curves.

    Parameters
    ----------
    curves
        Shape ``(KNOTS, X, Y, Z)``.
    positions
        Shape ``(3, N)``, in units of cells, inside the grid (see `Cells.position`).
    values
        Scaled intensities, shape ``(N,)``, not negative.
    """
    values = values.clamp(max=MAX_FINITE)
    knot = (values / KNOT_STEP).floor().clamp(0, KNOTS - 2).to(torch.int64)
    # The share may exceed 1: beyond the last knot the last segment goes on.
    along = values / KNOT_STEP - knot
    low = positions.floor().to(torch.int64)
    far = positions - low
    flat = curves.reshape(KNOTS, -1)
    result = torch.zeros_like(values)
    for corner in np.ndindex(2, 2, 2):
        weight = torch.ones_like(values)
        index = torch.zeros_like(knot)
        for axis, step in enumerate(corner):
            count = curves.shape[axis + 1]
            weight = weight * (far[axis] if step else 1 - far[axis])
            index = index * count + (low[axis] + step).clamp(max=count - 1)
        below, above = flat[knot, index], flat[knot + 1, index]
        result = result + weight * (below + along * (above - below))
    return result


def slice_volume(
    curves: Tensor, cells: Cells, volume: Tensor, chunk_voxels: int | None = None, unit: float = 1.0
) -> Tensor:
    """Look every voxel of a volume up in the curves around it, plane by plane.

    The same function as `slice_points`, ordered so that memory stays bounded and the curves are first
    interpolated to each plane and line. Planes of about `chunk_voxels` voxels (None: `CHUNK_VOXELS`) at once
    are where the curves are; how many makes no difference to the result. The curves call `unit` 1.
    """
    planes = max(1, (chunk_voxels or CHUNK_VOXELS) // (cells.shape[0] * cells.shape[1]))
    result = torch.empty_like(volume)
    by_plane = curves.permute(3, 2, 1, 0).contiguous()
    for start in range(0, cells.shape[2], planes):
        chunk = slice(start, start + planes)
        scaled = _scaled(volume[..., chunk], curves.device, unit)
        inside = _slice_planes(by_plane, cells, scaled, chunk)
        result[..., chunk] = _extend(inside, curves, cells, scaled, chunk)
    return result


def _slice_planes(by_plane: Tensor, cells: Cells, volume: Tensor, chunk: slice) -> Tensor:
    device = volume.device
    # NIfTI volumes lie in memory in lines along the first axis, so that is the order of the loops.
    planes = volume.permute(2, 1, 0)
    tables = _between(_between(by_plane, cells.position(2, device)[chunk], 0), cells.position(1, device), 1)
    lines = planes.shape[0] * planes.shape[1]
    # Every line has its table of curves by intensity; the rest is bilinear.
    inside = F.grid_sample(
        tables.reshape(lines, 1, cells.counts[0], KNOTS),
        _sampling_grid(cells, planes).view(lines, 1, cells.shape[0], 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return inside.view(planes.shape).permute(2, 1, 0)


def _between(curves: Tensor, position: Tensor, axis: int) -> Tensor:
    """Interpolate curves, ``(z, y, x, KNOTS)``, at positions along the first or second axis."""
    low = position.floor().to(torch.int64)
    high = (low + 1).clamp(max=curves.shape[axis] - 1)
    share = (position - low).view([-1 if k == axis else 1 for k in range(4)])
    return torch.lerp(curves.index_select(axis, low), curves.index_select(axis, high), share)


def _sampling_grid(cells: Cells, planes: Tensor) -> Tensor:
    """Coordinates in -1..1 for `grid_sample`, ordered (intensity, x cell)."""
    coordinates = torch.empty(*planes.shape, 2, device=planes.device)
    coordinates[..., 0] = (planes / KNOT_STEP).clamp(max=KNOTS - 1) * (2 / (KNOTS - 1)) - 1
    span = max(cells.counts[0] - 1, 1)
    coordinates[..., 1] = cells.position(0, planes.device) * (2 / span) - 1
    return coordinates


def _extend(result: Tensor, curves: Tensor, cells: Cells, volume: Tensor, chunk: slice) -> Tensor:
    """Replace voxels above the last knot, few as they are, by the last segment's continuation."""
    where = (volume > MAX_INTENSITY).nonzero(as_tuple=True)
    if where[0].numel() == 0:
        return result
    device = volume.device
    offsets = (where[0], where[1], where[2] + chunk.start)
    positions = torch.stack([cells.position(axis, device)[offset] for axis, offset in enumerate(offsets)])
    result[where] = slice_points(curves, positions, volume[where])
    return result
