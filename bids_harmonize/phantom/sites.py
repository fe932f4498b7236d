"""The sites of the phantom: how each scans, and the runs of its participants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from bids_harmonize.errors import UsageError
from bids_harmonize.phantom.scanner import Receiver
from bids_harmonize.phantom.space import Grid
from bids_harmonize.simulation.protocols import Protocol

Suffix = Literal["T1w", "T2w"]


@dataclass(frozen=True, kw_only=True)
class PhantomScan:
    """One scan of the dataset: whose, where, how and under which name.

    `seeds` are the dataset's seed and the participant's number, from which `head_labels` draws the same head.
    """

    site: str
    session: str | None
    suffix: Suffix
    extension: str
    dtype: str
    protocol: Protocol
    grid: Grid
    receiver: Receiver
    seeds: tuple[int, int]

    @property
    def participant(self) -> str:
        """The participant's label with its prefix, such as ``sub-01``."""
        return f"sub-{self.seeds[1] + 1:02d}"

    @property
    def path(self) -> Path:
        """Path of the image within the dataset."""
        session = [f"ses-{self.session}"] if self.session else []
        name = "_".join([self.participant, *session, self.suffix])
        return Path(self.participant, *session, "anat", name + self.extension)


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """How a site acquires one modality."""

    protocol: Protocol
    grid: Grid
    receiver: Receiver


@dataclass(frozen=True, kw_only=True)
class _Site:
    """A scanner and its habits."""

    t1w: _Scan
    t2w: _Scan
    session: str | None = None
    extension: str = ".nii.gz"
    dtype: str = "int16"


_SITES = (
    _Site(
        t1w=_Scan(
            protocol=Protocol(field_strength=3.0, sequence="MPRAGE", tr=2300, te=2.98, ti=900, flip_angle=9),
            grid=Grid(zooms=(2, 2, 2)),
            receiver=Receiver(gain=1600, snr=35, shading=0.12),
        ),
        t2w=_Scan(
            protocol=Protocol(field_strength=3.0, sequence="spin echo", tr=3200, te=90),
            grid=Grid(zooms=(2, 2, 2)),
            receiver=Receiver(gain=1200, snr=25, shading=0.12),
        ),
    ),
    _Site(
        t1w=_Scan(
            protocol=Protocol(
                field_strength=1.5, sequence="spoiled gradient echo", tr=18, te=4.6, flip_angle=30
            ),
            grid=Grid(zooms=(1.5, 1.5, 2), axes="LAS", low=(-84, -102, -96)),
            receiver=Receiver(gain=1000, snr=22, shading=0.2),
        ),
        t2w=_Scan(
            protocol=Protocol(field_strength=1.5, sequence="spin echo", tr=4000, te=102),
            grid=Grid(zooms=(1.5, 1.5, 2), axes="LAS", low=(-84, -102, -96)),
            receiver=Receiver(gain=300, snr=18, shading=0.2),
        ),
    ),
    _Site(
        t1w=_Scan(
            protocol=Protocol(field_strength=3.0, sequence="spin echo", tr=600, te=12),
            grid=Grid(zooms=(2, 2, 2), axes="PSR"),
            receiver=Receiver(gain=30000, snr=40, shading=0.25),
        ),
        t2w=_Scan(
            protocol=Protocol(field_strength=3.0, sequence="spin echo", tr=5000, te=110),
            grid=Grid(zooms=(1.5, 1.5, 5), axes="LAS", low=(-84, -102, -74)),
            receiver=Receiver(gain=24000, snr=30, shading=0.25),
        ),
        extension=".nii",
        dtype="uint16",
    ),
    _Site(
        t1w=_Scan(
            protocol=Protocol(field_strength=1.5, sequence="MPRAGE", tr=1900, te=3.9, ti=1000, flip_angle=15),
            grid=Grid(zooms=(2, 2, 2), oblique=(-12, 3, 5)),
            receiver=Receiver(gain=4500, snr=28, shading=0.15),
        ),
        t2w=_Scan(
            protocol=Protocol(field_strength=1.5, sequence="spin echo", tr=5500, te=80),
            grid=Grid(zooms=(1.8, 1.8, 3), axes="RPS", oblique=(-12, 3, 5)),
            receiver=Receiver(gain=3500, snr=25, shading=0.15),
        ),
        session="01",
    ),
)


def plan_runs(*, seed: int = 0, sites: int = 4, people_per_site: int = 2) -> list[PhantomScan]:
    """Every run of the dataset, the runs of a participant together.

    Raises
    ------
    UsageError
        If the seed is negative, or there would be no site or no participant.
    """
    if seed < 0 or sites < 1 or people_per_site < 1:
        raise UsageError(
            "the phantom needs a seed of 0 or more, and at least one site and one participant per site"
        )
    return [
        run
        for person in range(sites * people_per_site)
        for run in _runs_of(seed, person, person // people_per_site)
    ]


def _runs_of(seed: int, person: int, site_number: int) -> list[PhantomScan]:
    site = _site(seed, site_number)
    scans: tuple[tuple[Suffix, _Scan], ...] = (("T1w", site.t1w), ("T2w", site.t2w))
    return [
        PhantomScan(
            site=_site_name(site_number),
            session=site.session,
            suffix=suffix,
            extension=site.extension,
            dtype=site.dtype,
            protocol=scan.protocol,
            grid=scan.grid,
            receiver=scan.receiver,
            seeds=(seed, person),
        )
        for suffix, scan in scans
    ]


def _site(seed: int, number: int) -> _Site:
    site = _SITES[number % len(_SITES)]
    if number < len(_SITES):
        return site
    rng = np.random.default_rng((seed, number, 3))
    return replace(site, t1w=_varied(site.t1w, rng), t2w=_varied(site.t2w, rng))


def _varied(scan: _Scan, rng: np.random.Generator) -> _Scan:
    """Another scanner of the same kind: timing within 10 %, where the order of tissues cannot change."""
    protocol, receiver = scan.protocol, scan.receiver
    tr, te = (round(float(t * rng.uniform(0.9, 1.1)), 2) for t in (protocol.tr, protocol.te))
    gain = float(receiver.gain * rng.uniform(0.4, 1.2))
    return replace(scan, protocol=replace(protocol, tr=tr, te=te), receiver=replace(receiver, gain=gain))


def _site_name(number: int) -> str:
    return f"site{number + 1:02d}"
