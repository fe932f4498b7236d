"""Tier H: what harmonization must not do to an image.

Steps between neighbours inside the head count as edges where they exceed 5 % of the scan's bright value, well
above the noise. Idempotence is the agreement of the output with that of harmonizing it again. Gain is output
over input inside the head; its range tells how differently places are treated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.data import Data
from benchmarks.figures import gradient_correlation, neighbours
from benchmarks.methods import Method
from benchmarks.rows import Better, Row, summarize
from benchmarks.scans import Mask, Scan, Volume
from bids_harmonize.grid import Cells
from bids_harmonize.image import intensity_scale
from bids_harmonize.metrics import agreement_db

TIER = "H"
EDGE = 0.05

BETTER: dict[str, Better] = {
    "edges of the same sign, %": "higher",
    "order reversed within a cell, pairs per million edges": "lower",
    "gradient correlation with the input": "higher",
    "harmonized twice, dB": "higher",
    "negative or non-finite inside the head, %": "lower",
    "gain, 99 % over 1 %": "neither",
}


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """Figures of all methods, on the left-out person and one scan of every site."""
    scans = [*data.left_out, *one_of_each_site(data.sites)]
    return [row for method in methods for row in _figures(method, scans, data.modality)]


def one_of_each_site(scans: Sequence[Scan]) -> list[Scan]:
    """The first scan of every site."""
    return list({scan.site: scan for scan in reversed(scans)}.values())[::-1]


def _figures(method: Method, scans: Sequence[Scan], modality: str) -> list[Row]:
    measured = [measure(method, scan) for scan in scans]
    return [
        summarize(
            TIER,
            modality,
            figure,
            method.name,
            [one[figure] for one in measured if figure in one],
            better=better,
            scans=len(scans),
        )
        for figure, better in BETTER.items()
        if any(figure in one for one in measured)
    ]


def measure(method: Method, scan: Scan) -> dict[str, float]:
    """The figures of one scan."""
    volume = method.apply(scan)
    again = method.apply(replace(scan, name=f"{scan.name}_{method.name}-again", volume=volume))
    inside = volume[scan.head]
    figures = {
        "edges of the same sign, %": 100 * same_sign(scan, volume),
        "order reversed within a cell, pairs per million edges": 1e6 * reversed_within_cells(scan, volume),
        "gradient correlation with the input": gradient_correlation(scan.volume, volume, scan.head),
        "harmonized twice, dB": agreement_db(inside, again[scan.head]),
        "negative or non-finite inside the head, %": 100 * float(np.mean(~(inside >= 0))),
    }
    if method.zero_kept:
        figures["gain, 99 % over 1 %"] = gain_range(scan, volume)
    return figures


def same_sign(scan: Scan, volume: Volume) -> float:
    """Share of the edges that rise and fall as in the input."""
    before, after = _edges(scan, volume, neighbours(scan.head))
    return float(np.mean(before * after > 0))


def reversed_within_cells(scan: Scan, volume: Volume) -> float:
    """Pairs of reversed order over all edges whose two voxels lie in the same cell of about 8 mm."""
    cells = Cells.of(scan.volume.shape, scan.zooms)
    pairs = []
    for axis, inside in enumerate(neighbours(scan.head)):
        index = cells.index(axis).numpy()
        shape = [1, 1, 1]
        shape[axis] = -1
        pairs.append(inside & (np.diff(index) == 0).reshape(shape))
    before, after = _edges(scan, volume, pairs)
    return float(np.mean(before * after < 0))


def _edges(scan: Scan, volume: Volume, pairs: Sequence[Mask]) -> tuple[Volume, Volume]:
    threshold = EDGE * intensity_scale(scan.volume)
    befores, afters = [], []
    for axis, inside in enumerate(pairs):
        before = np.diff(scan.volume, axis=axis)[inside]
        edge = np.abs(before) > threshold
        befores.append(before[edge])
        afters.append(np.diff(volume, axis=axis)[inside][edge])
    return np.concatenate(befores), np.concatenate(afters)


def gain_range(scan: Scan, volume: Volume) -> float:
    """The 99th over the 1st percentile of output over input, where the input is no background."""
    inside = scan.head & (scan.volume > 0.1 * intensity_scale(scan.volume))
    low, high = np.percentile(volume[inside] / scan.volume[inside], [1, 99])
    return float(high / low) if low > 0 else float("nan")
