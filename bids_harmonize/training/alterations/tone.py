"""Alterations by tone curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Segments of a random tone curve: enough to part grey from white matter, few enough to stay smooth.
SEGMENTS = 10


def piecewise_linear_map(
    volume: NDArray[np.float32], known: Mapping[str, float], wanted: Mapping[str, float]
) -> NDArray[np.float32]:
    """Bring every tissue from the intensity it has to the one it shall have, in straight lines between them.

    Zero stays zero. Voxels brighter than the brightest tissue are scaled as that tissue is. Where no tissue
    is known, as around a skull-stripped brain, the volume comes back unchanged.

    Parameters
    ----------
    volume
        Intensities, not negative.
    known
        Intensity of each tissue in the volume.
    wanted
        Intensity that each of these tissues is to have, in any order: the map need not rise.
    """
    names = sorted(known, key=lambda name: known[name])
    knots = np.array([0.0, *(known[name] for name in names)])
    values = np.array([0.0, *(wanted[name] for name in names)])
    if not knots[-1] > 0:
        return volume
    mapped = np.interp(volume, knots, values).astype(np.float32)
    beyond = volume > knots[-1]
    mapped[beyond] += (volume[beyond] - np.float32(knots[-1])) * np.float32(values[-1] / knots[-1])
    return mapped


def blend(
    inner: NDArray[np.float32], outer: NDArray[np.float32], inside: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Take `inner` where `inside` is 1, `outer` where it is 0, and a mixture between."""
    return outer + inside * (inner - outer)


@dataclass(frozen=True)
class ToneCurve:
    """A rising curve through (0, 0) and (1, 1), given by the slopes of its equal segments between.

    Beyond 1 the last slope goes on.
    """

    slopes: tuple[float, ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Random curves: a gamma between about 0.5 and 2, times a random walk of the log slopes."""
        middle = (np.arange(SEGMENTS) + 0.5) / SEGMENTS
        gamma = np.exp(rng.normal(0, 0.4) * strength)
        log_slopes = (gamma - 1) * np.log(middle)
        walk = np.cumsum(rng.normal(0, 0.3, SEGMENTS)) * strength
        slopes = np.exp(np.clip(log_slopes + walk - walk.mean(), -2.5, 2.5))
        return cls(tuple((slopes / slopes.mean()).tolist()))

    def apply(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map intensities; order is kept."""
        values = np.concatenate([[0], np.cumsum(self.slopes)]) / len(self.slopes)
        knots = np.linspace(0, 1, len(values))
        mapped = np.interp(volume, knots, values)
        beyond = volume > 1
        mapped[beyond] = 1 + (volume[beyond] - 1) * self.slopes[-1]
        return mapped.astype(np.float32)


@dataclass(frozen=True)
class SurroundingGain:
    """Scalp, fat, neck and air outside the brain brighter or darker, as between sequences."""

    gain: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Gains between about a quarter and four: fat is 1 to 4 times as bright as white matter in T1w."""
        return cls(float(np.exp(np.clip(rng.normal(0, 0.7), -1.4, 1.4) * strength)))

    def apply(self, volume: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale where `inside` (1 in the brain, 0 outside, soft between) is below 1."""
        return volume * (self.gain + (1 - self.gain) * inside).astype(np.float32)
