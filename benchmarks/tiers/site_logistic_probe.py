"""Tier F: can a logistic regression still tell the sites apart, and are participants still recognizable?

The *site probe* is trained anew on the outputs of each method, cross-validated, and described by its balanced
accuracy over scans, with the standard deviation and the 95 % interval of its posterior. Its features are
intensities on the method's mapped scale (see `intensities`), at about 2 mm: quantile function, tissue
medians and gradients. It is not the classifier of the group page (`measures.site_classifier.classify_sites`,
a linear discriminant analysis of recorded quantiles): the accuracies of the two are not comparable.

- *brain*: all sites of two scans or more, inside the brain, so that a skull taken away does not betray the
  site;
- *brain slabs*: the same in slabs, for more samples. A scan goes to the site with the highest mean of its
  slabs' probabilities, and its slabs are never on both sides;
- *whole heads*: inside the head, without the skull-stripped sites;
- *simulated protocols*: six, with the same heads, in slabs; no head is on both sides.

What tone curves cannot change, such as resolution and noise, stays for the probe to find.

Participants are *recognizable* if the edges inside each output are more like those of a raw scan of the same
participant than like those of any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.result_rows import Row, summarize
from benchmarks.scans import Mask, Scan, Volume
from benchmarks.tiers.intensities import (
    Scale,
    harmonized_group,
    has_brain,
    is_stripped,
    sample,
    tissue_medians,
)
from benchmarks.tiers.statistics import INTERVAL
from bids_harmonize.measures.quantiles import QUANTILES
from bids_harmonize.measures.site_classifier import balanced_accuracy

TIER = "F"
WORKING_MM = 2.0
SLABS = 6
# A brain in this many cells: enough for gyri, few enough to forgive another voxel size.
EDGE_GRID = (24, 30, 24)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ProbeExample:
    """Feature vectors ``(samples, features)`` of a scan, its site, and the group held out with it."""

    label: str
    group: str
    features: Array


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """A volume and its masks, averaged to about 2 mm, and its gradient per mm."""

    scan: Scan
    volume: Volume
    gradient: Volume
    head: Mask
    brain: Mask

    @classmethod
    def of(cls, scan: Scan, volume: Volume) -> Coarse:
        """Average a volume that was made of a scan."""
        steps = [max(1, round(WORKING_MM / zoom)) for zoom in scan.zooms]
        zooms = [zoom * step for zoom, step in zip(scan.zooms, steps, strict=True)]
        averaged = block_mean(volume, steps)
        head, brain = (block_mean(mask, steps) > 0.5 for mask in (scan.head, scan.brain))
        gradient = gradient_magnitude(averaged, zooms)
        return cls(scan=scan, volume=averaged, gradient=gradient, head=head, brain=brain)

    def features(self, region: Mask) -> Array:
        """What the probe sees of a region."""
        values, edges = sample(self.volume, region), sample(self.gradient, region)
        return np.concatenate(
            [
                np.quantile(values, QUANTILES),
                tissue_medians(values, self.scan.modality),
                np.quantile(edges, [0.1, 0.5, 0.9]),
                [edges.mean(), edges.std()],
            ]
        )

    def slabs(self) -> Array:
        """Features of axial slabs of the brain with as many voxels each."""
        height = np.flatnonzero(self.brain) % self.brain.shape[2]
        limits = np.quantile(height, np.linspace(0, 1, SLABS + 1)).round().astype(int)
        limits[-1] += 1
        features = []
        for low, high in pairwise(limits):
            slab = np.zeros_like(self.brain)
            slab[..., low:high] = self.brain[..., low:high]
            features.append(self.features(slab))
        return np.stack(features)

    def edges(self) -> Array:
        """The gradient in a coarse grid over the brain, mean 0 and norm 1."""
        box = ndimage.find_objects(self.brain.astype(np.uint8))[0]
        inside = self.gradient[box] * self.brain[box]
        factors = [n / m for n, m in zip(EDGE_GRID, inside.shape, strict=True)]
        cells = ndimage.zoom(inside.astype(np.float64), factors, order=1, grid_mode=True, mode="nearest")
        centred = cells.ravel() - cells.mean()
        return np.asarray(centred / np.linalg.norm(centred))


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods."""
    scans = [*data.reference, *data.held_out, *data.sites, *data.simulated]
    raw = np.stack([Coarse.of(scan, scan.volume).edges() for scan in scans])
    rows = []
    for method in methods:
        scale, _ = harmonized_group(method, data.reference)
        outputs = [_output(method, scan, scale) for scan in scans]
        real, simulated = outputs[: -len(data.simulated)], outputs[-len(data.simulated) :]
        for name, examples in _probes(real, simulated).items():
            rows += _accuracy(method.name, data.modality, name, examples)
        edges = np.stack([output.edges() for output in outputs])
        rows.append(_recognizable(method.name, data.modality, recognized(edges, raw, scans)))
    return rows


def block_mean(volume: Volume | Mask, steps: Sequence[int]) -> Volume:
    """Means of blocks of voxels; what is left over at the ends is left out."""
    (x, y, z), (a, b, c) = volume.shape, steps
    whole = volume[: x // a * a, : y // b * b, : z // c * c]
    return np.asarray(whole.reshape(x // a, a, y // b, b, z // c, c).mean(axis=(1, 3, 5)), dtype=np.float32)


def gradient_magnitude(volume: Volume, zooms: Sequence[float]) -> Volume:
    """Length of the gradient, per mm."""
    parts = np.gradient(volume, *zooms)
    return np.asarray(np.sqrt(sum(np.square(part) for part in parts)), dtype=np.float32)


def cross_validated_sites(examples: Sequence[ProbeExample]) -> list[str]:
    """The site that a classifier, trained on the other groups, finds for each example.

    The classifier is a logistic regression on standardized features, classes weighted as if all were equally
    frequent.
    """
    found: list[str] = []
    for example in examples:
        others = [other for other in examples if other.group != example.group]
        labels = [other.label for other in others for _ in other.features]
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
        ).fit(np.concatenate([other.features for other in others]), labels)
        chances = classifier.predict_proba(example.features).mean(axis=0)
        found.append(str(classifier.classes_[int(np.argmax(chances))]))
    return found


def recognized(outputs: Array, raw: Array, scans: Sequence[Scan]) -> list[bool]:
    """Whether the raw scan with the most similar edges is of the same participant."""
    nearest = np.argmax(outputs @ raw.T, axis=1)
    return [
        _participant_of(scan) == _participant_of(scans[int(k)])
        for scan, k in zip(scans, nearest, strict=True)
    ]


def _participant_of(scan: Scan) -> str:
    """The participant, whatever the voxel size that a head was simulated at."""
    return scan.participant.split(" at ")[0]


def _output(method: Method, scan: Scan, scale: Scale) -> Coarse:
    return Coarse.of(scan, np.asarray(scale(method.apply(scan)), dtype=np.float32))


def _probes(real: Sequence[Coarse], simulated: Sequence[Coarse]) -> dict[str, list[ProbeExample]]:
    brains = [output for output in real if has_brain(output.scan)]
    heads = [output for output in real if not is_stripped(output.scan)]
    return {
        "brain": [
            _example(output, output.features(output.brain)[None]) for output in _of_repeated_sites(brains)
        ],
        "brain slabs": [_example(output, output.slabs()) for output in _of_repeated_sites(brains)],
        "whole heads": [
            _example(output, output.features(output.head)[None]) for output in _of_repeated_sites(heads)
        ],
        "simulated protocols": [_example(output, output.slabs()) for output in simulated],
    }


def _of_repeated_sites(outputs: Sequence[Coarse]) -> list[Coarse]:
    """The outputs of sites that have two scans or more."""
    counts = Counter(output.scan.site for output in outputs)
    return [output for output in outputs if counts[output.scan.site] > 1]


def _example(output: Coarse, features: Array) -> ProbeExample:
    return ProbeExample(label=output.scan.site, group=_participant_of(output.scan), features=features)


def _accuracy(method: str, modality: str, name: str, examples: Sequence[ProbeExample]) -> list[Row]:
    labels = [example.label for example in examples]
    if len(set(labels)) < 2:
        return []
    value, draws = balanced_accuracy(labels, cross_validated_sites(examples))
    low, high = np.percentile(draws, INTERVAL)
    metric = f"site probe, {name}: balanced accuracy"
    values = {
        f"{metric} (chance {1 / len(set(labels)):.2f})": value,
        # If all or no scans are classified correctly, the posterior interval excludes the observed accuracy,
        # so it is widened to include it.
        f"{metric}, 95 % interval from": min(low, value),
        f"{metric}, 95 % interval to": max(high, value),
    }
    return [
        Row(
            tier=TIER,
            modality=modality,
            metric=key,
            method=method,
            value=float(number),
            spread=float(draws.std()),
            n=len(labels),
            better="lower",
            scans_used=len(labels),
        )
        for key, number in values.items()
    ]


def _recognizable(method: str, modality: str, hits: Sequence[bool]) -> Row:
    return summarize(
        TIER, modality, "people recognizable, share", method, hits, better="higher", scans=len(hits)
    )
