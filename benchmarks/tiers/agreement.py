"""Tier A: do the outputs of one simulated head agree, whatever the protocol?

A head is scanned under six protocols, each with its own receive field, noise and gain. Agreement is over all
pairs of protocols. Ratios are of methods that keep zero; of all methods the spread of the white-matter median
is stated over the range inside the brain. White-grey contrast and the correlation of gradients with the input
guard them: a method that flattens contrast would agree with itself. So would one that lays the same picture
over all outputs of a head, as spectrum swapping does; the truth shows the price. That truth is the noiseless
rendering at a protocol whose contrast is about that of the reference group, up to a gain and an offset.

An oracle shows how far any method could get that maps intensities and leaves noise alone: it knows the
receive field, and of all rising curves takes the one that brings the brain nearest to the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.optimize import isotonic_regression

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.metrics import (
    fitted,
    gradient_correlation,
    tissue_median,
    value_range,
    variation,
    white_grey_contrast,
)
from benchmarks.result_rows import Better, Row, summarize
from benchmarks.scans import Scan, Volume
from bids_harmonize.measures.agreement import agreement_db

TIER = "A"
ORACLE = "oracle"
#: Slices this thick are a benchmark of their own.
THICK_MM = 3.0

BETTER: dict[str, Better] = {
    "agreement inside the brain, dB": "higher",
    "agreement inside the head, dB": "higher",
    "to the truth inside the brain, dB": "higher",
    "white-matter median, CoV": "lower",
    "grey/white ratio, CoV": "lower",
    "white-matter median over range, SD": "lower",
    "white-grey contrast over range": "neither",
    "gradient correlation with the input": "neither",
}


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods, and of the oracle inside the brain; thick slices apart."""
    oracle = Method(name=ORACLE, function=nearest_to_truth, folder=methods[0].folder)
    return [
        row
        for thick in (False, True)
        for method in (*methods, oracle)
        for row in _method_rows(
            method, _by_participant(data.simulated, thick=thick), data.modality, thick=thick
        )
    ]


def _by_participant(scans: Sequence[Scan], *, thick: bool) -> list[list[Scan]]:
    participants: dict[str, list[Scan]] = {}
    for scan in scans:
        if (max(scan.zooms) > THICK_MM) == thick:
            participants.setdefault(scan.participant, []).append(scan)
    return list(participants.values())


def _method_rows(
    method: Method, participants: Sequence[Sequence[Scan]], modality: str, *, thick: bool
) -> list[Row]:
    measured: dict[str, list[float]] = {metric: [] for metric in BETTER}
    for scans in participants:
        for metric, values in measure(method, scans).items():
            measured[metric] += values
    used = sum(map(len, participants))
    label = f"{modality}, thick slices" if thick else modality
    return [
        summarize(TIER, label, metric, method.name, values, better=BETTER[metric], scans=used)
        for metric, values in measured.items()
        if values and not (method.name == ORACLE and "head" in metric)
    ]


def nearest_to_truth(scan: Scan) -> Volume:
    """The brain without its receive field, by the rising curve that comes nearest to the truth."""
    inside = (scan.volume / scan.truth["field"])[scan.brain]
    order = np.argsort(inside)
    best = isotonic_regression(scan.truth["reference"][scan.brain][order].astype(np.float64)).x
    volume = np.zeros_like(scan.volume)
    brain = np.empty_like(inside)
    brain[order] = best
    volume[scan.brain] = brain
    return volume


def measure(method: Method, scans: Sequence[Scan]) -> dict[str, list[float]]:
    """The metrics of one head under several protocols."""
    volumes = [method.apply(scan) for scan in scans]
    pairs = list(zip(scans, volumes, strict=True))
    white, grey = ([tissue_median(*pair, name) for pair in pairs] for name in ("white matter", "grey matter"))
    ranges = [value_range(volume[scan.brain]) for scan, volume in pairs]
    metrics = {
        "agreement inside the brain, dB": _agreement([volume[scan.brain] for scan, volume in pairs]),
        "agreement inside the head, dB": _agreement([volume[scan.head] for scan, volume in pairs]),
        "to the truth inside the brain, dB": [_to_truth(*pair) for pair in pairs],
        "white-matter median over range, SD": [float(np.std(white, ddof=1) / np.mean(ranges))],
        "white-grey contrast over range": [white_grey_contrast(*pair) for pair in pairs],
        "gradient correlation with the input": [
            gradient_correlation(scan.volume, volume, scan.head) for scan, volume in pairs
        ],
    }
    if method.zero_kept:
        metrics["white-matter median, CoV"] = [variation(white)]
        metrics["grey/white ratio, CoV"] = [variation(np.divide(grey, white).tolist())]
    return metrics


def _agreement(values: Sequence[Volume]) -> list[float]:
    return [agreement_db(a, b) for a, b in combinations(values, 2)]


def _to_truth(scan: Scan, volume: Volume) -> float:
    wanted = scan.truth["reference"][scan.brain]
    return agreement_db(fitted(volume[scan.brain], wanted, offset=True), wanted)
