"""Tier P: are prostates of different men, and one prostate altered, alike in their intensities afterwards?

The intersection of histograms (Swain and Ballard 1991) in the middle of the field of view: of all pairs of
men, and of altered copies of the held-out man with the other men. It is 1 where two histograms are the same.
The range is that of the method's own outputs, so that no method gains by its unit. AutoRef (Sunoqrot et al.
2020, doi:10.1007/s10334-020-00871-3), whose network finds fat and muscle, is compared too where
``pyAutoRef`` is installed (``pip install --no-deps pyAutoRef``, and what it needs beside it: onnxruntime,
pydicom, setuptools before 81).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from benchmarks.data import PROSTATE, Data
from benchmarks.methods import Method
from benchmarks.result_rows import Row, summarize
from benchmarks.scans import Scan, Volume
from benchmarks.tiers.held_out import altered_scans

TIER = "P"
BINS = 64
# Values beyond these percentiles of all outputs of a method count as these.
RANGE = (0.5, 99.5)
AUTOREF = "AutoRef"

Values = NDArray[np.floating]


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods."""
    if data.modality != PROSTATE:
        return []
    return [row for method in (*methods, *_peers(methods)) for row in _method_rows(method, data)]


def intersection(first: Values, second: Values, edges: NDArray[np.float64]) -> float:
    """What two distributions have in common, from 0 to 1; values beyond the edges count as these."""
    one, other = (
        np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / values.size
        for values in (first, second)
    )
    return float(np.minimum(one, other).sum())


def _method_rows(method: Method, data: Data) -> list[Row]:
    men = [_middle(method, scan) for scan in (*data.reference, *data.held_out)]
    altered = [
        _middle(method, copy)
        for scan in data.held_out
        for copies in altered_scans(scan).values()
        for copy in copies
    ]
    low, high = np.percentile(np.concatenate(men), RANGE).tolist()
    edges = np.linspace(low, high, BINS + 1)
    others = men[: len(data.reference)]
    values = {
        "histogram intersection across men": [
            intersection(one, other, edges) for one, other in combinations(men, 2)
        ],
        "histogram intersection of altered copies with the other men": [
            intersection(copy, other, edges) for copy, other in product(altered, others)
        ],
    }
    return [
        summarize(TIER, data.modality, metric, method.name, numbers, better="higher", scans=len(men))
        for metric, numbers in values.items()
    ]


def _middle(method: Method, scan: Scan) -> Values:
    return method.apply(scan)[scan.brain]


def _peers(methods: Sequence[Method]) -> list[Method]:
    """AutoRef, where it is installed."""
    try:
        autoref = import_module("pyAutoRef.autoref").autoref
    except ImportError as error:
        print(f"tier {TIER}: no {AUTOREF} ({error})", file=sys.stderr)
        return []
    # It tells each of its steps.
    logging.getLogger().setLevel(logging.WARNING)
    folder: Path = methods[0].folder
    return [Method(name=AUTOREF, function=lambda scan: _normalized(autoref, scan), folder=folder)]


def _normalized(autoref: Any, scan: Scan) -> Volume:
    """The scan as AutoRef makes it; it wants axes to the left, to the back and upwards."""
    turned = np.ascontiguousarray(scan.volume[::-1, ::-1].T)
    image = SimpleITK.GetImageFromArray(turned)
    image.SetSpacing([float(zoom) for zoom in scan.zooms])
    made = autoref(image)
    if made is None:
        raise ValueError("it found no fat and no muscle")
    return np.asarray(SimpleITK.GetArrayFromImage(made).T[::-1, ::-1], dtype=np.float32)
