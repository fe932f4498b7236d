"""The scanner of the phantom: from labels to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_harmonize.phantom.anatomy import PHANTOM_LABELS, Head
from bids_harmonize.phantom.space import Array, Grid, resample, waves_on_grid
from bids_harmonize.simulation.protocols import Protocol


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """What the coil and the receiver do to the signal.

    Parameters
    ----------
    gain : float
        Raw units per unit of signal.
    snr : float
        Signal of white matter over the standard deviation of the noise in each channel.
    shading : float
        Amplitude of the smooth receive field, as its natural logarithm.
    """

    gain: float
    snr: float
    shading: float


def render(head: Head, protocol: Protocol, grid: Grid, receiver: Receiver, *, seed: Sequence[int]) -> Array:
    """Scan a head.

    Partial volume arises from blurring the label map's signals to the voxel size before they are sampled; the
    noise is Rician (Gudbjartsson and Patz, 1995).

    Parameters
    ----------
    head : Head
    protocol : Protocol
    grid : Grid
    receiver : Receiver
    seed : sequence of int
        Decides the shading and the noise.

    Returns
    -------
    ndarray of float32, shape `grid.shape`
        Non-negative raw units.
    """
    rng = np.random.default_rng(tuple(seed))
    signals = np.array([protocol.signal(name) for name in PHANTOM_LABELS], np.float32)
    blur = _blur_in_label_voxels(head, grid)
    ideal = ndimage.gaussian_filter(signals[head.labels] * head.texture, blur, truncate=3)
    clean = resample(ideal, head.affine, grid, order=1) * _shading(grid, receiver, rng)
    sigma = protocol.signal("white matter") / receiver.snr
    real, imaginary = sigma * rng.standard_normal((2, *grid.shape), dtype=np.float32)
    result: Array = np.float32(receiver.gain) * np.hypot(clean + real, imaginary)
    return result


def _blur_in_label_voxels(head: Head, grid: Grid) -> list[float]:
    spacing = np.linalg.norm(head.affine[:3, :3], axis=0)
    zooms = dict(zip(grid.world_axes, grid.zooms, strict=True))
    return [0.35 * zooms[axis] / float(spacing[axis]) for axis in range(3)]


def _shading(grid: Grid, receiver: Receiver, rng: np.random.Generator) -> Array:
    slow = waves_on_grid(grid.shape, grid.affine, rng, wavelength=330, count=4)
    quick = waves_on_grid(grid.shape, grid.affine, rng, wavelength=160, count=4)
    return np.exp(np.float32(receiver.shading) * (0.7 * slow + 0.3 * quick))
