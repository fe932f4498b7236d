"""How often each family of alterations is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

K_SPACE = {
    "RadialGain": 0.35,
    "CentrePerturbation": 0.35,
    "MagnitudePower": 0.35,
    "LowBandToneMapped": 0.25,
    "LowBandOtherScan": 0.08,
    "Apodization": 0.35,
}
TONES = {"ToneCurve": 0.35, "LocalToneCurves": 0.3, "SurroundingGain": 0.5}
SCANNER = {"SmoothField": 0.6, "Noise": 0.3, "SkullStripped": 0.2, "Cropped": 0.3}
# Another contrast of a reference scan, tissue by tissue, by the signal equations.
ACQUISITION = {"Acquisition": 0.45}
# Without a brain there is no skull to strip and no tissue that is known.
WITHOUT_BRAIN = {"ToneCurve": 0.7, "LocalToneCurves": 0.5, **K_SPACE, **SCANNER, "SkullStripped": 0.0}
# Standard deviation of the logarithm of the scale: the bright value that a scan is divided by is that of fat
# in one protocol and that of white matter in another.
SCALE_JITTER = 0.1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How often each family alters a scan.

    Attributes
    ----------
    frequencies
        Probability of each family.
    unaltered, mild
        Shares of pairs that are not altered, or at `mild_strength`. Without them the network does not leave
        a reference scan alone.
    simulated
        Share of pairs made of simulated heads, where there are any.
    personal_spread
        How much the tissues of simulated people differ, as in `vary_tissues`. At 1.5 %, grey over white
        matter of the targets differs by 3 %, a little more than among people of 68 to 96 years under one
        protocol (2.1 %). At 4 %, which differences of relaxation times suggest, it differed by as much as
        between protocols, so that the network took protocols for people, and left them as they were.
    personal_grain
        How much single voxels of simulated people differ within a tissue, at most, in both images of a pair.
        Noise of the altered image alone teaches curves that even out a tissue, and with it a diffuse change
        or a faint lesion; what both images show is to be kept.
    size_spread
        How much larger or smaller people are than they were scanned, along each axis, at most: few heads
        stand for many.
    scale_jitter
        Standard deviation of the logarithm of the scale.
    second_pass
        Share of pairs whose altered scan is harmonized once before, so that harmonizing twice is like
        harmonizing once.
    """

    frequencies: Mapping[str, float] = field(
        default_factory=lambda: {**TONES, **ACQUISITION, **K_SPACE, **SCANNER}
    )
    unaltered: float = 0.15
    mild: float = 0.15
    mild_strength: float = 0.3
    simulated: float = 0.6
    personal_spread: float = 0.015
    personal_grain: float = 0.2
    size_spread: float = 0.12
    scale_jitter: float = SCALE_JITTER
    second_pass: float = 0.25

    def is_drawn(self, family: str, rng: np.random.Generator) -> bool:
        """Draw whether a family alters the scan."""
        return bool(rng.random() < self.frequencies.get(family, 0.0))
