"""The MR signal equations, and the relaxation times of the tissues that they are applied to.

Times are in milliseconds, flip angles in degrees; signals are relative to the proton density of water (1.0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
