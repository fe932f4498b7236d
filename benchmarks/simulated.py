"""Scans with a known truth: heads of label maps under hospitals' protocols.

Tissues differ from participant to participant; those of one are the same under every protocol. Every scan has
a field and noise of its own; the field is of another kind than in training, a polynomial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.scans import Mask, Scan, Volume
from benchmarks.splits import heads
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.simulation.protocols import Protocol, vary_tissues

#: Protocols as hospitals use them; no two are alike.
PROTOCOLS: Mapping[str, Mapping[str, Protocol]] = {
    "T1w": {
        "MPRAGE 3 T": Protocol(field_strength=3.0, sequence="MPRAGE", tr=2300, te=3.0, ti=900),
        "MPRAGE 1.5 T": Protocol(field_strength=1.5, sequence="MPRAGE", tr=1900, te=4.0, ti=1100),
        "gradient echo 3 T": Protocol(
            field_strength=3.0, sequence="spoiled gradient echo", tr=9, te=3.5, flip_angle=15
        ),
        "gradient echo 1.5 T": Protocol(
            field_strength=1.5, sequence="spoiled gradient echo", tr=24, te=6.0, flip_angle=35
        ),
        "spin echo 3 T": Protocol(field_strength=3.0, sequence="spin echo", tr=600, te=10),
        "spin echo 1.5 T": Protocol(field_strength=1.5, sequence="spin echo", tr=500, te=14),
    },
    "T2w": {
        "3 T, 6000/100": Protocol(field_strength=3.0, sequence="spin echo", tr=6000, te=100),
        "3 T, 8000/85": Protocol(field_strength=3.0, sequence="spin echo", tr=8000, te=85),
        "3 T, 3000/75": Protocol(field_strength=3.0, sequence="spin echo", tr=3000, te=75),
        "1.5 T, 4000/90": Protocol(field_strength=1.5, sequence="spin echo", tr=4000, te=90),
        "1.5 T, 5500/110": Protocol(field_strength=1.5, sequence="spin echo", tr=5500, te=110),
        "1.5 T, 3000/125": Protocol(field_strength=1.5, sequence="spin echo", tr=3000, te=125),
    },
}
#: The protocols, of those tried on training heads, whose quantiles inside the brain are nearest to those of
#: the reference group; they are none of the above.
REFERENCE_LIKE: Mapping[str, Protocol] = {
    "T1w": Protocol(field_strength=3.0, sequence="MPRAGE", tr=1600, te=3.0, ti=1100),
    "T2w": Protocol(field_strength=3.0, sequence="spin echo", tr=5000, te=33),
}
#: Voxels of 1 mm (right, anterior, superior) gathered into one; T2w also in thick slices.
GRIDS: Mapping[str, Sequence[tuple[int, int, int]]] = {"T1w": [(2, 2, 2)], "T2w": [(2, 2, 2), (2, 2, 5)]}
#: Largest deviation of the log of the receive field.
SHADING = 0.25
#: Order of the polynomial that the log of the receive field is.
FIELD_ORDER = 3
#: Signal of white matter over the noise of one channel.
SIGNAL_TO_NOISE = (20.0, 40.0)
#: Scanners store in units of their own.
GAIN = (100.0, 2000.0)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One participant before the scanner: noiseless images by protocol, "reference" among them.

    Attributes
    ----------
    inside
        Voxels of the head.
    shares
        Shares of white, grey and deep grey matter.
    white
        Signal of white matter by protocol.
    """

    name: str
    modality: str
    zooms: tuple[float, float, float]
    renderings: Mapping[str, Volume]
    white: Mapping[str, float]
    shares: Mapping[str, Volume]
    inside: Mask
    brain: Mask

    @classmethod
    def of(cls, head: Head, modality: str, reference: Protocol | None = None) -> Self:
        """Draw the participant; the same one for the same head.

        Parameters
        ----------
        reference
            The protocol of the truth; None for that of `REFERENCE_LIKE`.
        """
        rng = np.random.default_rng(_number(head.name))
        participant, tissues = head.person(rng), vary_tissues(rng)
        protocols = {"reference": reference or REFERENCE_LIKE[modality], **PROTOCOLS[modality]}
        signals = {name: protocol.signals(tissues) for name, protocol in protocols.items()}
        return cls(
            name=head.name,
            modality=modality,
            zooms=head.zooms,
            renderings={name: participant.render(signal) for name, signal in signals.items()},
            white={name: signal["white matter"] for name, signal in signals.items()},
            shares={name: head.share(name) for name in ("white matter", "grey matter", "deep grey matter")},
            inside=np.asarray(head.fractions.sum(axis=0) > 0.5),
            brain=head.brain,
        )

    def scan(self, protocol: str, rendering: Volume | None = None, tag: str = "") -> Scan:
        """What a scanner makes of a rendering, the protocol's own unless another is given.

        Field, noise and gain depend on participant, voxel size and protocol, not on the rendering.
        """
        number = list(self.renderings).index(protocol)
        rng = np.random.default_rng([_number(self.name), number, round(10 * self.zooms[2])])
        clean = self.renderings[protocol] if rendering is None else rendering
        volume, field = acquire(clean, self.white[protocol], self.inside, rng)
        size = "x".join(f"{zoom:g}" for zoom in self.zooms)
        return Scan(
            name=f"{self.name}_{size}mm_{number}{tag}_{self.modality}",
            participant=f"{self.name} at {size} mm",
            site=protocol,
            modality=self.modality,
            volume=volume,
            zooms=self.zooms,
            affine=np.diag([*self.zooms, 1.0]),
            head=self.inside,
            brain=self.brain,
            truth={**self.shares, "reference": self.renderings["reference"], "field": field},
        )


def simulated_subjects(
    labels: Path, modality: str, development: bool, reference: Protocol | None = None
) -> list[Subject]:
    """The participants, once for each voxel size; `reference` is the protocol of the truth."""
    return [
        Subject.of(Head.read(labels / f"{name}_dseg.nii.gz", factors), modality, reference)
        for name in heads(development)
        for factors in GRIDS[modality]
    ]


def acquire(rendering: Volume, white: float, inside: Mask, rng: np.random.Generator) -> tuple[Volume, Volume]:
    """A rendering with receive field, Rician noise and gain; and the field."""
    sigma = white / rng.uniform(*SIGNAL_TO_NOISE)
    field = polynomial_field(inside, rng)
    real, imaginary = rng.normal(0, sigma, (2, *rendering.shape))
    magnitude = np.hypot(rendering * field + real, imaginary)
    return np.asarray(rng.uniform(*GAIN) / white * magnitude, dtype=np.float32), field


def polynomial_field(inside: Mask, rng: np.random.Generator) -> Volume:
    """The exponential of a polynomial of order `FIELD_ORDER`, at most exp(±`SHADING`) inside the mask."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in inside.shape), indexing="ij", sparse=True)
    log_field: NDArray[np.float64] = np.zeros(inside.shape)
    for i, j, k in np.ndindex((FIELD_ORDER + 1,) * 3):
        if 0 < i + j + k <= FIELD_ORDER:
            log_field += rng.normal() * x**i * y**j * z**k
    log_field -= log_field[inside].mean()
    largest = np.abs(log_field[inside]).max()
    limited = np.clip(rng.uniform(0.5, 1) * SHADING * log_field / largest, -SHADING, SHADING)
    return np.exp(limited).astype(np.float32)


def _number(head: str) -> int:
    return int(head.rsplit("-", 1)[1])
