"""Tier H: what harmonization must not do to an image.

Steps between neighbours inside the head count as edges where they exceed 5 % of the scan's bright value, well
above the noise. Gain is output over input inside the head; its range tells how differently places are
treated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.metrics import gradient_correlation, neighbours
from benchmarks.result_rows import Better, Row, summarize_each
from benchmarks.scans import Mask, Scan, Volume
from bids_harmonize.imaging.foreground import Foreground
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.model.bilateral_grid import Cells

TIER = "H"
EDGE = 0.05

BETTER: dict[str, Better] = {
    "edges of the same sign, %": "higher",
    "order reversed within a cell, pairs per million edges": "lower",
    "gradient correlation with the input": "higher",
    "negative or non-finite inside the head, %": "lower",
    "gain, 99 % over 1 %": "neither",
}


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods, on the held-out participant and one scan of every site."""
    scans = [*data.held_out, *one_of_each_site(data.sites)]
    return [row for method in methods for row in _method_rows(method, scans, data.modality)]


def one_of_each_site(scans: Sequence[Scan]) -> list[Scan]:
    """The first scan of every site."""
    return list({scan.site: scan for scan in reversed(scans)}.values())[::-1]


def _method_rows(method: Method, scans: Sequence[Scan], modality: str) -> list[Row]:
    measured = [measure(method, scan) for scan in scans]
    return summarize_each(TIER, modality, method.name, measured, BETTER, scans=len(scans))


def measure(method: Method, scan: Scan) -> dict[str, float]:
    """The metrics of one scan."""
    volume = method.apply(scan)
    inside = volume[scan.head]
    metrics = {
        "edges of the same sign, %": 100 * same_sign(scan, volume),
        "order reversed within a cell, pairs per million edges": 1e6 * reversed_within_cells(scan, volume),
        "gradient correlation with the input": gradient_correlation(scan.volume, volume, scan.head),
        "negative or non-finite inside the head, %": 100 * float(np.mean(~(inside >= 0))),
    }
    if method.zero_kept:
        metrics["gain, 99 % over 1 %"] = gain_range(scan, volume)
    return metrics


def same_sign(scan: Scan, volume: Volume) -> float:
    """Share of the edges that rise and fall as in the input."""
    before, after = _edges(scan, volume, neighbours(scan.head))
    return float(np.mean(before * after > 0))


def reversed_within_cells(scan: Scan, volume: Volume) -> float:
    """Pairs of reversed order over all edges whose two voxels lie in the same cell of about 8 mm."""
    box = Foreground.of(scan.volume, scan.zooms).box
    cells = Cells.of_box(box, scan.volume.shape, scan.zooms)
    pairs = []
    for axis, inside in enumerate(neighbours(scan.head)):
        index = np.floor(cells.position(axis).numpy() + 0.5)
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
