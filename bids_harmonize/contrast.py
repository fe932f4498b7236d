"""Contrast that k-space alone cannot change: tone curves and the MR signal equations.

Times are in milliseconds, flip angles in degrees; signals are relative to the proton density of water (1.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Segments of a random tone curve: enough to part grey from white matter, few enough to stay smooth.
SEGMENTS = 10


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Relaxation times (ms) and proton density (relative to water) of one tissue at one field strength."""

    t1: float
    t2: float
    proton_density: float

    def at_1_5_tesla(self) -> Tissue:
        """The same tissue at 1.5 T, where T1 is about 0.72 of its value at 3 T."""
        return Tissue(t1=0.72 * self.t1, t2=self.t2, proton_density=self.proton_density)


TISSUES_3T = {
    "white matter": Tissue(t1=850, t2=70, proton_density=0.70),
    "grey matter": Tissue(t1=1400, t2=95, proton_density=0.82),
    "csf": Tissue(t1=4300, t2=1800, proton_density=1.0),
    "fat": Tissue(t1=380, t2=70, proton_density=0.95),
    "muscle": Tissue(t1=1400, t2=38, proton_density=0.8),
    # Cortical bone has next to no signal at the echo times of T1w and T2w scans.
    "bone": Tissue(t1=1000, t2=2, proton_density=0.15),
}


def spin_echo(tissue: Tissue, *, tr: float, te: float) -> float:
    """Signal of a spin echo, PD (1 - exp(-TR/T1)) exp(-TE/T2)."""
    return tissue.proton_density * (1 - np.exp(-tr / tissue.t1)) * np.exp(-te / tissue.t2)


def spoiled_gradient_echo(tissue: Tissue, *, tr: float, te: float, flip_angle: float) -> float:
    """Signal of a spoiled gradient echo at the flip angle (degrees), by the Ernst formula."""
    alpha = np.deg2rad(flip_angle)
    e1 = np.exp(-tr / tissue.t1)
    steady_state = np.sin(alpha) * (1 - e1) / (1 - e1 * np.cos(alpha))
    return tissue.proton_density * steady_state * np.exp(-te / tissue.t2)


def magnetization_prepared(tissue: Tissue, *, tr: float, te: float, ti: float) -> float:
    """Magnitude signal of an inversion-prepared gradient echo (MPRAGE)."""
    recovery = 1 - 2 * np.exp(-ti / tissue.t1) / (1 + np.exp(-tr / tissue.t1))
    return abs(tissue.proton_density * recovery) * np.exp(-te / tissue.t2)


def inversion_recovery(tissue: Tissue, *, tr: float, te: float, ti: float) -> float:
    """Magnitude signal of an inversion-recovery spin echo (FLAIR, STIR)."""
    recovery = 1 - 2 * np.exp(-ti / tissue.t1) + np.exp(-tr / tissue.t1)
    return abs(tissue.proton_density * recovery) * np.exp(-te / tissue.t2)


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
