"""Placing the atlas onto a scan.

The scan's contrast is not known, so that nothing is assumed of it but that intensities tell tissues: the
atlas lies where intensities and classes say most of one another (mutual information, after Viola and Wells
1997, doi:10.1023/A:1007958904918). It is divided by the mean of both entropies (Studholme et al. 1999,
doi:10.1016/S0031-3203(98)00091-0), since otherwise the largest brain that fits into the image would win.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bids_harmonize.brain.atlas import Atlas
from bids_harmonize.imaging.types import Volume

# Intensities are told apart in bins: some between air and a tenth of the bright value, at these shares of
# that, as fluid may be as dark as that; above it, as many for the same number of voxels each.
DARK_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
BRIGHT_BINS = 23
BINS = len(DARK_EDGES) + BRIGHT_BINS + 1
DARK_SHARE = 0.1
# Sizes of cells, mm: where to begin is searched in the first, and placed ever finer then.
SEARCH_MM, COARSE_MM, FINE_MM = 12.0, 8.0, 4.0
# Beginnings that are tried: logarithms of sizes, and steps from the middle of the image, mm.
SIZES = (-0.12, 0.12)
ANTERIOR, UPWARDS_MM = (-24.0, 0.0, 24.0), 16.0
# How much turns (radians) and sizes (logarithms: of the whole, and of one axis over another) of people and
# the way they lie differ, and how much that weighs.
TURN_SPREAD, SIZE_SPREAD, STRETCH_SPREAD, PRIOR_WEIGHT = 0.2, 0.12, 0.06, 5e-3
SHIFT_UNIT_MM = 50.0
COARSE_STEPS, COARSE_RATE, FINE_STEPS, FINE_RATE = 40, 0.02, 25, 0.01
MEAN_DECAY, SQUARE_DECAY = 0.9, 0.999
# So many cells, drawn anew at each step, are enough to see where to go.
SAMPLE = 4_000


class Pose(nn.Module):
    """From places in a scan to places in the atlas: a shift, a size along each axis of the scan, a turn."""

    def __init__(self, shift_mm: tuple[float, float, float], log_size: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift_mm) / SHIFT_UNIT_MM)
        self.size = nn.Parameter(torch.full((3,), -log_size))
        self.turn = nn.Parameter(torch.zeros(3))

    def forward(self, places: Tensor) -> Tensor:
        """Places ``(n, 3)`` in the atlas, mm."""
        return (places - SHIFT_UNIT_MM * self.shift) @ self._matrix().T

    def inverse(self, places: Tensor) -> Tensor:
        """Places ``(n, 3)`` in the scan, mm, of places in the atlas."""
        return places @ torch.linalg.inv(self._matrix()).T + SHIFT_UNIT_MM * self.shift

    def _matrix(self) -> Tensor:
        return _rotation(self.turn) * self.size.exp()

    def in_part(
        self, part: tuple[slice, ...], shape: Sequence[int], zooms: tuple[float, float, float]
    ) -> Pose:
        """The same pose for a part of the volume, whose places are measured from its own middle."""
        offsets = [
            (extent.start + extent.stop - n) / 2 * zoom
            for extent, n, zoom in zip(part, shape, zooms, strict=True)
        ]
        moved = deepcopy(self)
        moved.shift.sub_(torch.tensor(offsets) / SHIFT_UNIT_MM)
        return moved

    def oddity(self) -> Tensor:
        """How unusual it is for a person to lie in a scanner like this."""
        stretch = self.size - self.size.mean()
        return PRIOR_WEIGHT * (
            (self.turn / TURN_SPREAD).square().sum()
            + (stretch / STRETCH_SPREAD).square().sum()
            + (self.size.mean() / SIZE_SPREAD).square()
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Binned:
    """Cells of a volume: the bin of their intensity, ``(n,)``, and where they lie, ``(n, 3)`` mm."""

    bins: Tensor
    places: Tensor

    @classmethod
    def of(cls, volume: Tensor, zooms: Tensor, edges: NDArray[np.float32]) -> Self:
        """Bin all voxels; places are measured from the middle of the volume."""
        return cls(bins=bin_of(volume.flatten(), edges), places=places_of(volume.shape, zooms))

    def drawn(self, generator: torch.Generator) -> Self:
        """A sample of the cells."""
        chosen = torch.randint(len(self.bins), (SAMPLE,), generator=generator)
        return type(self)(bins=self.bins[chosen], places=self.places[chosen])


def intensity_edges(volume: Volume) -> NDArray[np.float32]:
    """What parts the bins, rising; of a volume in units of its bright value."""
    quantiles = np.linspace(0, 1, BRIGHT_BINS + 1)[1:-1]
    bright = np.quantile(volume[volume > DARK_SHARE], quantiles)
    edges = [*(DARK_SHARE * share for share in DARK_EDGES), *bright]
    return np.asarray(edges, dtype=np.float32)


def bin_of(values: Tensor, edges: NDArray[np.float32]) -> Tensor:
    """The bin of every value."""
    return torch.bucketize(values.contiguous(), torch.from_numpy(edges))


def places_of(shape: Sequence[int], zooms: Tensor) -> Tensor:
    """Where the voxels of a volume lie, ``(n, 3)`` in mm from its middle."""
    axes = [(torch.arange(n) - (n - 1) / 2) * zoom for n, zoom in zip(shape, zooms.tolist(), strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)


def in_cells(volume: Volume, zooms: tuple[float, float, float], cell_mm: float) -> tuple[Tensor, Tensor]:
    """Means of a volume in cells of about a size, and what their size is."""
    extent = [n * zoom for n, zoom in zip(volume.shape, zooms, strict=True)]
    cells = x, y, z = tuple(max(1, round(length / cell_mm)) for length in extent)
    means = F.adaptive_avg_pool3d(torch.from_numpy(np.ascontiguousarray(volume))[None], (x, y, z))[0]
    return means, torch.tensor(extent) / torch.tensor(cells)


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Where an atlas lies in a scan, and by what that was found.

    Attributes
    ----------
    edges
        What parts the bins of intensities.
    cells
        The finest cells of the scan.
    explained
        How much intensities and classes say of one another there, see `dependence`.
    """

    pose: Pose
    edges: NDArray[np.float32]
    cells: Binned
    explained: float


def place(atlas: Atlas, volume: Volume, zooms: tuple[float, float, float]) -> Placement:
    """Where the atlas lies in a volume whose axes run right, anterior, superior.

    Parameters
    ----------
    volume
        ``(x, y, z)``, not negative, in units of its bright value (`intensity_scale`); cut to its foreground.
    zooms
        Voxel size in mm.
    """
    edges = intensity_edges(volume)
    search, coarse, fine = (
        Binned.of(*in_cells(volume, zooms, cell_mm), edges) for cell_mm in (SEARCH_MM, COARSE_MM, FINE_MM)
    )
    pose = _beginning(atlas, search)
    generator = torch.Generator().manual_seed(0)
    _improve(pose, lambda: dependence(atlas, pose, coarse.drawn(generator)), COARSE_STEPS, COARSE_RATE)
    _improve(pose, lambda: dependence(atlas, pose, fine.drawn(generator)), FINE_STEPS, FINE_RATE)
    pose.requires_grad_(False)
    return Placement(pose=pose, edges=edges, cells=fine, explained=float(dependence(atlas, pose, fine)))


def dependence(atlas: Atlas, pose: Pose, cells: Binned) -> Tensor:
    """How much intensities and classes say of one another: 0 nothing, 1 all there is to say."""
    shares = atlas.at(pose(cells.places))
    counts = torch.zeros(BINS, len(shares)).index_add(0, cells.bins, shares.T) + 1e-3
    joint = counts / counts.sum()
    apart = _entropy(joint.sum(0)) + _entropy(joint.sum(1))
    return 2 * (apart - _entropy(joint)) / apart


def _beginning(atlas: Atlas, cells: Binned) -> Pose:
    reach = cells.places.amax(0)
    heights = np.arange(-float(reach[2]), float(reach[2]) + UPWARDS_MM, UPWARDS_MM).tolist()
    tried = [
        Pose((0.0, anterior, height), size) for size in SIZES for anterior in ANTERIOR for height in heights
    ]
    with torch.no_grad():
        scores = [float(dependence(atlas, pose, cells)) for pose in tried]
    return tried[int(np.argmax(scores))]


def _improve(pose: Pose, measure: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Raise a measure by Adam (Kingma and Ba 2015, arXiv:1412.6980).

    That of torch would load its compiler first, which takes seconds and wants a temporary folder.
    """
    parameters = list(pose.parameters())
    means, squares = ([torch.zeros_like(one) for one in parameters] for _ in range(2))
    for step in range(1, steps + 1):
        slopes = torch.autograd.grad(pose.oddity() - measure(), parameters)
        with torch.no_grad():
            for one, slope, mean, square in zip(parameters, slopes, means, squares, strict=True):
                mean.lerp_(slope, 1 - MEAN_DECAY)
                square.lerp_(slope.square(), 1 - SQUARE_DECAY)
                spread = (square / (1 - SQUARE_DECAY**step)).sqrt()
                one.sub_(rate * mean / (1 - MEAN_DECAY**step) / (spread + 1e-8))


def _entropy(shares: Tensor) -> Tensor:
    return -(shares * shares.log()).sum()


def _rotation(turn: Tensor) -> Tensor:
    """The matrix of turns about the three axes, in radians."""
    zero, one = torch.zeros(()), torch.ones(())
    (a, b, c), (d, e, f) = turn.cos(), turn.sin()
    first = torch.stack([one, zero, zero, zero, a, -d, zero, d, a]).view(3, 3)
    second = torch.stack([b, zero, e, zero, one, zero, -e, zero, b]).view(3, 3)
    third = torch.stack([c, -f, zero, f, c, zero, zero, zero, one]).view(3, 3)
    return first @ second @ third
