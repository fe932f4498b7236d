"""MR protocols, and the signal that tissues give under them.

Times are in milliseconds, flip angles in degrees, field strengths in tesla; signals are relative to the
proton density of water (1.0).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bids_harmonize.simulation.signal_equations import (
    TISSUES_3T,
    Tissue,
    inversion_recovery,
    magnetization_prepared,
    spin_echo,
    spoiled_gradient_echo,
)

SequenceName = Literal["spin echo", "spoiled gradient echo", "MPRAGE", "inversion recovery"]

# The brain's tissues and those of the rest of a head, by rounded values of the literature at 3 T.
TISSUES: Mapping[str, Tissue] = TISSUES_3T | {
    "marrow": Tissue(t1=450, t2=50, proton_density=0.6),
    "deep grey matter": Tissue(t1=1200, t2=78, proton_density=0.79),
    "blood": Tissue(t1=1900, t2=120, proton_density=0.85),
    "mucosa": Tissue(t1=1300, t2=80, proton_density=0.85),
    "lesion": Tissue(t1=1500, t2=130, proton_density=0.88),
    "enhancement": Tissue(t1=400, t2=80, proton_density=0.85),
    "air": Tissue(t1=1000, t2=1, proton_density=0.0),
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What decides the contrast of a scan.

    Parameters
    ----------
    field_strength : float
        Tesla, 3.0 or 1.5.
    sequence : str
        ``"spin echo"``, ``"spoiled gradient echo"``, ``"MPRAGE"`` or ``"inversion recovery"`` (spin echo).
    tr, te, ti : float
        Repetition, echo and inversion time in ms; the inversion time matters after an inversion only.
    flip_angle : float
        Degrees; it decides the contrast of the spoiled gradient echo only.
    """

    field_strength: float
    sequence: SequenceName
    tr: float
    te: float
    ti: float = 0.0
    flip_angle: float = 90.0

    def signal(self, tissue: str, tissues: Mapping[str, Tissue] = TISSUES) -> float:
        """Signal of a tissue, by its properties at 3 T."""
        properties = tissues[tissue]
        if self.field_strength < 2:
            properties = properties.at_1_5_tesla()
        if self.sequence == "spin echo":
            return float(spin_echo(properties, tr=self.tr, te=self.te))
        if self.sequence == "MPRAGE":
            return float(magnetization_prepared(properties, tr=self.tr, te=self.te, ti=self.ti))
        if self.sequence == "inversion recovery":
            return float(inversion_recovery(properties, tr=self.tr, te=self.te, ti=self.ti))
        return float(spoiled_gradient_echo(properties, tr=self.tr, te=self.te, flip_angle=self.flip_angle))

    def signals(self, tissues: Mapping[str, Tissue] = TISSUES) -> dict[str, float]:
        """Signals of all tissues."""
        return {name: self.signal(name, tissues) for name in tissues}


# Of the modalities that there are signal equations for: protocols under which tissues look as in the
# reference groups of the bundled models, and what is usual for FLAIR. That of T1w gives the group's own
# ratios of grey matter (0.63) and fluid (0.15) to white; an inversion of 900 ms, with a grey matter of 0.40,
# would make twice as much of what is special about a person's relaxation times.
REFERENCE_PROTOCOLS: Mapping[str, Protocol] = {
    "T1w": Protocol(field_strength=3.0, sequence="MPRAGE", tr=2000, te=3, ti=1100),
    "T2w": Protocol(field_strength=3.0, sequence="spin echo", tr=5000, te=100),
    "FLAIR": Protocol(field_strength=3.0, sequence="inversion recovery", tr=9000, te=120, ti=2500),
}
# What is special about the signal of these is a person's own.
BRAIN_TISSUES = ("white matter", "grey matter", "deep grey matter", "csf")


def draw_protocol(modality: str, rng: np.random.Generator) -> Protocol:
    """A protocol of one of `REFERENCE_PROTOCOLS`' modalities at random, within what hospitals use."""
    field = float(rng.choice([1.5, 3.0]))
    if modality == "T2w":
        # Short repetition times are common, and matter more: fluid has not recovered then.
        tr, te = np.exp(rng.uniform(np.log(2000), np.log(9000))), rng.uniform(50, 130)
        return Protocol(field_strength=field, sequence="spin echo", tr=float(tr), te=te)
    if modality == "FLAIR":
        tr = float(rng.uniform(4800, 11000))
        # The inversion time is chosen so that fluid gives next to no signal.
        fluid = TISSUES["csf"] if field > 2 else TISSUES["csf"].at_1_5_tesla()
        dark = fluid.t1 * np.log(2 / (1 + np.exp(-tr / fluid.t1)))
        te, ti = rng.uniform(80, 150), float(dark * rng.uniform(0.92, 1.03))
        return Protocol(field_strength=field, sequence="inversion recovery", tr=tr, te=te, ti=ti)
    kind = rng.integers(3)
    if kind == 0:
        tr, te, ti = rng.uniform(1600, 2600), rng.uniform(2, 5), rng.uniform(750, 1200)
        return Protocol(field_strength=field, sequence="MPRAGE", tr=tr, te=te, ti=ti)
    if kind == 1:
        tr, te, angle = rng.uniform(8, 35), rng.uniform(2, 9), rng.uniform(12, 40)
        return Protocol(
            field_strength=field, sequence="spoiled gradient echo", tr=tr, te=te, flip_angle=angle
        )
    return Protocol(
        field_strength=field, sequence="spin echo", tr=rng.uniform(350, 800), te=rng.uniform(8, 20)
    )


def vary_tissues(
    rng: np.random.Generator, spread: float = 0.08, fixed: Collection[str] = ()
) -> dict[str, Tissue]:
    """Draw the tissues of one participant.

    Relaxation times vary by a factor of about 1 ± `spread`, proton densities by half as much. Fat's T2 varies
    up to threefold, since fat is brighter in a train of spin echoes than its T2 says. Those that are `fixed`
    stay as they are.
    """
    varied = {}
    for name, tissue in TISSUES.items():
        if name in fixed:
            varied[name] = tissue
            continue
        t1, t2, density = np.exp(rng.normal(0, spread, 3) * (1, 1, 0.5))
        if name in ("fat", "marrow"):
            t2 *= np.exp(rng.uniform(0, np.log(3)))
        varied[name] = replace(
            tissue,
            t1=float(tissue.t1 * t1),
            t2=float(tissue.t2 * t2),
            proton_density=float(tissue.proton_density * density),
        )
    return varied
