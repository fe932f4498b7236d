"""Toy scans and methods for the tests of the benchmark's tiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.data import Data
from benchmarks.methods import Apply, Method
from benchmarks.scans import Scan

SHAPE = (32, 36, 30)


@dataclass(frozen=True, kw_only=True)
class ToyData(Data):
    """Data that consists of the scans it is made with."""

    group: Sequence[Scan] = ()
    unseen: Sequence[Scan] = ()
    others: Sequence[Scan] = ()
    heads: Sequence[Scan] = field(default_factory=list)

    @property
    def reference(self) -> list[Scan]:
        return list(self.group)

    @property
    def held_out(self) -> list[Scan]:
        return list(self.unseen)

    @property
    def sites(self) -> list[Scan]:
        return list(self.others)

    @property
    def simulated(self) -> list[Scan]:  # type: ignore[override]
        return list(self.heads)


def ball(seed: int, site: str = "reference", gain: float = 1.0, grey: float = 600.0) -> Scan:
    """A brain of 900 within `grey` within 200, in scalp of 1200, at 5 mm; folds are the participant's own."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    a, b, c = rng.uniform(4, 9, 3)
    folds = 0.06 * np.sin(a * x + seed) * np.sin(b * y) * np.cos(c * z)
    radius = np.sqrt(x**2 + y**2 + z**2) + folds
    signal = np.select(
        [radius < 0.45, radius < 0.65, radius < 0.72, radius < 0.85], [900, grey, 200, 1200], 0
    )
    noise = rng.normal(0, 12, (2, *SHAPE))
    return Scan(
        name=f"{site}-{seed}",
        participant=f"participant-{seed}",
        site=site,
        modality="T1w",
        volume=(gain * np.hypot(signal + noise[0], noise[1])).astype(np.float32),
        zooms=(5.0, 5.0, 5.0),
        affine=np.diag([5.0, 5.0, 5.0, 1.0]),
        head=radius < 0.85,
        brain=radius < 0.72,
    )


def stripped(scan: Scan) -> Scan:
    """The same without its skull."""
    return replace(
        scan,
        name=f"{scan.name}-stripped",
        site="stripped",
        volume=scan.volume * scan.brain,
        head=scan.brain,
    )


def toy_data(folder: Path, **scans: Sequence[Scan]) -> ToyData:
    return ToyData(shared=folder, modality="T1w", **scans)  # type: ignore[arg-type]


def method(folder: Path, function: Apply, name: str = "toy") -> Method:
    return Method(name=name, function=function, folder=folder)


def white_level(scan: Scan) -> float:
    """The innermost voxels are white matter."""
    x, y, z = (n // 2 for n in SHAPE)
    return float(np.median(scan.volume[x - 3 : x + 3, y - 3 : y + 3, z - 3 : z + 3]))


def normalized(scan: Scan) -> np.ndarray:
    """What an ideal method does to a toy of another gain."""
    return scan.volume / np.float32(white_level(scan))


def unchanged(scan: Scan) -> np.ndarray:
    return scan.volume
