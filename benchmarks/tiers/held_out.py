"""Tier C: a participant of the reference scanner whom no model has seen, unaltered and altered.

Each output is compared with the original scan inside the brain: after the gain that fits best (and the
offset, where a method does not keep zero), and with the one linear map that a method's outputs of the
reference group ask for, ours with none. The alterations are not those of training: a pure power of the
intensities, a sigmoid, a polynomial receive field, a few regions brightened. Powers lie among the random tone
curves of training, but are no family of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.metrics import fitted
from benchmarks.result_rows import Row, summarize
from benchmarks.scans import Scan, Volume
from benchmarks.simulated import polynomial_field
from benchmarks.tiers.intensities import WHITE_MATTER, Scale, harmonized_group, measure
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.measures.agreement import agreement_db

TIER = "C"
DRAWS = 2

Alteration = Callable[[Scan, np.random.Generator], Volume]


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods."""
    return [row for method in methods for row in _method_rows(method, data)]


def power(scan: Scan, rng: np.random.Generator) -> Volume:
    """Intensities, in units of the bright value, to a power between 0.6 and 1.7."""
    scale = np.float32(intensity_scale(scan.volume))
    exponent = np.exp(rng.uniform(np.log(0.6), np.log(1.7)))
    return np.asarray(scale * (scan.volume / scale) ** exponent, dtype=np.float32)


def sigmoid(scan: Scan, rng: np.random.Generator) -> Volume:
    """More contrast about a middle value, less in the dark and in the bright; 0 stays 0."""
    scale = np.float32(intensity_scale(scan.volume))
    middle, steepness = rng.uniform(0.35, 0.65), rng.uniform(2, 5)
    low, values = (1 / (1 + np.exp(-steepness * (x - middle))) for x in (0, scan.volume / scale))
    return np.asarray(scale * (values - low), dtype=np.float32)


def receive_field(scan: Scan, rng: np.random.Generator) -> Volume:
    """A polynomial field."""
    return scan.volume * polynomial_field(scan.head, rng)


def brightened_regions(scan: Scan, rng: np.random.Generator) -> Volume:
    """Three regions of 15 to 35 mm up to 20 % brighter or darker."""
    centres = np.argwhere(scan.head)[rng.integers(np.count_nonzero(scan.head), size=3)]
    grid = np.meshgrid(*map(np.arange, scan.volume.shape), indexing="ij", sparse=True)
    gain = np.ones(scan.volume.shape, dtype=np.float32)
    for centre in centres:
        width, change = rng.uniform(15, 35), rng.uniform(-0.2, 0.2)
        away = sum(((x - c) * zoom) ** 2 for x, c, zoom in zip(grid, centre, scan.zooms, strict=True))
        gain += np.float32(change) * np.exp(-away / (2 * width**2)).astype(np.float32)
    return scan.volume * gain


ALTERATIONS: Mapping[str, Alteration] = {
    "power": power,
    "sigmoid": sigmoid,
    "receive field": receive_field,
    "brightened regions": brightened_regions,
}


def altered_scans(scan: Scan) -> dict[str, list[Scan]]:
    """Copies by every family, always the same ones."""
    return {
        family: [
            replace(
                scan,
                name=f"{scan.name}_{family.replace(' ', '-')}-{draw}",
                volume=alteration(scan, np.random.default_rng([number, draw])),
            )
            for draw in range(DRAWS)
        ]
        for number, (family, alteration) in enumerate(ALTERATIONS.items())
    }


def _method_rows(method: Method, data: Data) -> list[Row]:
    scale, _ = harmonized_group(method, data.reference)
    values: dict[str, list[float]] = {}
    for original in data.held_out:
        copies = {"unaltered": [original], **altered_scans(original)}
        for family, scans in copies.items():
            matched = [_matched(method, scan, original) for scan in scans]
            mapped = [_mapped(method, scan, original, scale) for scan in scans]
            values.setdefault(f"{family}: output to original, dB", []).extend(matched)
            values.setdefault(f"{family}: output to original, gain not matched, dB", []).extend(mapped)
    used = len(data.held_out)
    return [
        summarize(TIER, data.modality, metric, method.name, numbers, better="higher", scans=used)
        for metric, numbers in values.items()
    ]


def _matched(method: Method, scan: Scan, original: Scan) -> float:
    wanted = original.volume[original.brain]
    output = method.apply(scan)[original.brain]
    return agreement_db(fitted(output, wanted, offset=not method.zero_kept), wanted)


def _mapped(method: Method, scan: Scan, original: Scan, scale: Scale) -> float:
    gain = np.float32(WHITE_MATTER / measure(original, original.volume).white)
    output = method.apply(scan)[original.brain]
    return agreement_db(np.asarray(scale(output), dtype=np.float32), original.volume[original.brain] * gain)
