"""Tier K: what surrounds a head, and how often it is harmonized, must not change it.

The left-out person and one scan of every site are given with 25 voxels of zeros around them, with their air
cut away, and at half the resolution; and what came out is given once more. Differences are those of voxels of
the head, over the 1 to 99 % range of the plain output. At half the resolution, outputs are compared with
averages of the plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.result_rows import Better, Row, summarize_each
from benchmarks.scans import Scan, Volume, averaged, box_around
from benchmarks.tiers.invariants import one_of_each_site
from bids_harmonize.measures.agreement import agreement_db

TIER = "K"
PADDING = 25

BETTER: dict[str, Better] = {
    "harmonized twice, dB": "higher",
    "zeros around: change of the head, mean, % of the range": "lower",
    "zeros around: change of the head, 99 %, % of the range": "lower",
    "air cut away: change of the head, mean, % of the range": "lower",
    "air cut away: change of the head, 99 %, % of the range": "lower",
    "half the resolution, dB": "higher",
}


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods."""
    scans = [*data.held_out, *one_of_each_site(data.sites)]
    return [row for method in methods for row in _method_rows(method, scans, data.modality)]


def padded(scan: Scan) -> tuple[Scan, tuple[slice, ...]]:
    """The scan with zeros around it, and where it lies in there."""
    place = tuple(slice(PADDING, PADDING + n) for n in scan.volume.shape)
    offset = np.eye(4)
    offset[:3, 3] = -PADDING
    around = replace(
        scan,
        name=f"{scan.name}_padded",
        volume=np.pad(scan.volume, PADDING),
        head=np.pad(scan.head, PADDING),
        brain=np.pad(scan.brain, PADDING),
        affine=scan.affine @ offset,
    )
    return around, place


def cropped(scan: Scan) -> tuple[Scan, tuple[slice, ...]]:
    """The scan without the air beside its head, and the box that is left."""
    box = box_around(scan.head, scan.zooms, 0.0)
    offset = np.eye(4)
    offset[:3, 3] = [axis.start for axis in box]
    left = replace(
        scan,
        name=f"{scan.name}_cropped",
        volume=np.ascontiguousarray(scan.volume[box]),
        head=scan.head[box],
        brain=scan.brain[box],
        affine=scan.affine @ offset,
    )
    return left, box


def halved(scan: Scan) -> Scan:
    """The scan at half the resolution."""
    offset = np.diag([2.0, 2.0, 2.0, 1.0])
    offset[:3, 3] = 0.5
    head, brain = (averaged(mask.astype(np.float32), (2, 2, 2)) > 0.5 for mask in (scan.head, scan.brain))
    x, y, z = (2 * zoom for zoom in scan.zooms)
    return replace(
        scan,
        name=f"{scan.name}_halved",
        volume=averaged(scan.volume, (2, 2, 2)),
        head=head,
        brain=brain,
        zooms=(x, y, z),
        affine=scan.affine @ offset,
    )


def measure(method: Method, scan: Scan) -> dict[str, float]:
    """The metrics of one scan."""
    plain = method.apply(scan)
    again = method.apply(replace(scan, name=f"{scan.name}_{method.name}-twice", volume=plain))
    half = halved(scan)
    measured = {
        "harmonized twice, dB": agreement_db(plain[scan.head], again[scan.head]),
        "half the resolution, dB": agreement_db(
            averaged(plain, (2, 2, 2))[half.head], method.apply(half)[half.head]
        ),
    }
    around, place = padded(scan)
    left, box = cropped(scan)
    changes = {
        "zeros around": method.apply(around)[place][scan.head] - plain[scan.head],
        "air cut away": method.apply(left)[left.head] - plain[box][left.head],
    }
    low, high = np.percentile(plain[scan.head], [1, 99])
    for kind, change in changes.items():
        for name, statistic in STATISTICS.items():
            share = 100 * statistic(np.abs(change)) / (high - low)
            measured[f"{kind}: change of the head, {name}, % of the range"] = float(share)
    return measured


STATISTICS: Mapping[str, Callable[[Volume], float]] = {
    "mean": lambda change: float(change.mean()),
    "99 %": lambda change: float(np.percentile(change, 99)),
}


def _method_rows(method: Method, scans: Sequence[Scan], modality: str) -> list[Row]:
    measured = [measure(method, scan) for scan in scans]
    return summarize_each(TIER, modality, method.name, measured, BETTER, scans=len(scans))
