"""Tier E: do radiomics features agree between protocols?

Simulated heads with a lesion inserted in the white matter of the left side, under six protocols. In fixed
masks (lesion, deep white matter of the right side, and of both sides the frontal lobe and the deep grey
matter) MIRP computes features as the Image Biomarker Standardisation Initiative defines them (first order,
GLCM, GLRLM, GLSZM, NGTDM; in 3-D, directions merged). ICC(2,1) of each feature is taken over all regions of
all heads, and *within* each kind of region, a harder question that three heads answer roughly, averaged over
the kinds.

The bin width is fixed: a 32nd of the 2 to 98 % range inside the brain of the reference group as the method
itself harmonizes it, so that z-scores get their fair width too. Bins start one range below that range and
end two above; what lies beyond is clipped. A feature that cannot be computed, or is the same everywhere, has
an ICC of 0. The spread of a share is its binomial standard error, that of a median the interquartile range
over 1.35.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mirp import extract_features
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.result_rows import Row
from benchmarks.scans import Mask, Scan, Volume
from benchmarks.simulated import PROTOCOLS, Subject
from benchmarks.tiers.intensities import group_curve, harmonized_group
from benchmarks.tiers.statistics import intraclass_correlation
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.simulation.signal_equations import Tissue

TIER = "E"
BINS = 32
#: Reliability from which on a feature counts as good.
GOOD = 0.75
# Interquartile range of normal numbers, in standard deviations.
NORMAL_RANGE = 1.35
FEATURE_FAMILIES = ["statistical", "glcm", "rlm", "szm", "ngtdm"]
#: Classes of features by the prefix of MIRP's names for them.
CLASSES: Mapping[str, str] = {
    "stat": "first order",
    "cm": "GLCM",
    "rlm": "GLRLM",
    "szm": "GLSZM",
    "ngt": "NGTDM",
}
WHITE_MM, LOBE_MM, LESION_MM = 10.0, 22.0, 7.0
#: The lesion's tissue lies between grey matter and fluid, as oedema or demyelination does.
LESION = Tissue(t1=1800, t2=140, proton_density=0.86)

Array = NDArray[np.float64]
Regions = Mapping[str, Sequence[Mask]]


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods."""
    heads = [
        _with_lesions(subject, data.shared / "data" / "labels")
        for subject in data.subjects
        if max(subject.zooms) == min(subject.zooms)
    ]
    return [row for method in methods for row in _method_rows(method, data, heads)]


def regions(head: Head) -> dict[str, list[Mask]]:
    """Masks of each kind of region, left before right where there are two."""
    x, y, z = np.ogrid[tuple(slice(n) for n in head.brain.shape)]
    middle = float(np.mean(np.nonzero(head.brain)[0]))
    left, right = x < middle, x >= middle
    deep = head.share("deep grey matter") > 0.5
    cerebrum = head.share("white matter") + head.share("grey matter") > 0.5
    white = (head.share("white matter") > 0.95) & (z > np.mean(np.nonzero(deep)[2]))
    depths = [ndimage.distance_transform_edt(white & side, sampling=head.zooms) for side in (left, right)]
    # The optic nerve counts as white matter, so that the most frontal voxel must be of grey matter.
    forward = np.where(head.share("grey matter") > 0.5, y, 0)
    return {
        "white matter": [ball(depths[1], WHITE_MM, head.zooms) & white & right],
        "lesion": [ball(depths[0], LESION_MM, head.zooms) & head.brain],
        "lobe": [ball(forward * side, LOBE_MM, head.zooms) & cerebrum & side for side in (left, right)],
        "deep grey matter": [deep & side for side in (left, right)],
    }


def ball(field: NDArray[np.generic], radius: float, zooms: Sequence[float]) -> Mask:
    """What is closer than `radius` mm to the (first) maximum of a field."""
    centre = np.unravel_index(int(np.argmax(field)), field.shape)
    offsets = np.ogrid[tuple(slice(n) for n in field.shape)]
    squares = [((i - c) * zoom) ** 2 for i, c, zoom in zip(offsets, centre, zooms, strict=True)]
    return np.asarray(sum(squares) < radius**2)


def features(volume: Volume, mask: Mask, span: tuple[float, float]) -> dict[str, float]:
    """Features of a region by their names, with bins of a 32nd of `span`."""
    low, high = span
    width = (high - low) / BINS
    bottom, top = low - (high - low), high + 2 * (high - low)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    with _quiet():
        table = extract_features(
            image=np.clip(volume[box], bottom, top).astype(np.float64),
            mask=mask[box],
            image_modality="mr",
            base_feature_families=FEATURE_FAMILIES,
            base_discretisation_method="fixed_bin_size",
            base_discretisation_bin_width=width,
            resegmentation_intensity_range=[bottom, top],
        )[0]
    names = [name for name in table.columns if name.split("_")[0] in CLASSES]
    # Some features have no value in a region without any texture.
    values = {name.split("_3d_")[0]: table[name].iloc[0] for name in names}
    return {name: np.nan if value is None else float(value) for name, value in values.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MIRP's log, and its warning that MR intensities have no unit: here they were given one."""
    logging.disable(logging.INFO)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The intensities for this image")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def reliability(table: Array, kinds: Sequence[str]) -> tuple[float, float]:
    """ICC of one feature over all regions, and within kinds of region.

    Parameters
    ----------
    table
        ``(heads, protocols, regions)``.
    kinds
        The kind of each region.
    """
    by_region = np.moveaxis(table, 1, -1)
    own = [by_region[:, [kind == other for other in kinds]] for kind in sorted(set(kinds))]
    within = [_known(ratings.reshape(-1, table.shape[1])) for ratings in own]
    return _known(by_region.reshape(-1, table.shape[1])), float(np.mean(within))


def _known(ratings: Array) -> float:
    return float(np.nan_to_num(intraclass_correlation(ratings), nan=0.0))


def _with_lesions(subject: Subject, labels: Path) -> tuple[list[Scan], Regions]:
    """The scans of a head with lesions, and where to measure."""
    x, y, z = (round(zoom) for zoom in subject.zooms)
    head = Head.read(labels / f"{subject.name}_dseg.nii.gz", (x, y, z))
    where = regions(head)
    share = lesion_share(where["lesion"], np.random.default_rng(0))
    scans = []
    for name, protocol in PROTOCOLS[subject.modality].items():
        signal = np.float32(protocol.signal("lesion", {"lesion": LESION}))
        rendering = subject.renderings[name] * (1 - share) + signal * share
        scans.append(subject.scan(name, rendering, tag="_radiomics"))
    return scans, where


def lesion_share(masks: Sequence[Mask], rng: np.random.Generator) -> Volume:
    """Share of lesion in every voxel: soft at the edge, and of uneven density inside."""
    noise = ndimage.gaussian_filter(rng.normal(size=masks[0].shape), 1.5)
    density = 0.7 + 0.25 * np.clip(noise / noise.std(), -1, 1)
    inside = ndimage.gaussian_filter(np.any(masks, axis=0).astype(np.float32), 0.6)
    return np.asarray(density * inside, dtype=np.float32)


def _method_rows(method: Method, data: Data, heads: Sequence[tuple[Sequence[Scan], Regions]]) -> list[Row]:
    scale, group = harmonized_group(method, data.reference)
    curve = group_curve(group, "brain")
    span = float(curve[0]), float(curve[-1])
    found = [
        [
            [features(volume, mask, span) for masks in where.values() for mask in masks]
            for volume in (np.asarray(scale(method.apply(scan))) for scan in scans)
        ]
        for scans, where in heads
    ]
    names = list(found[0][0][0])
    table = np.array([[[[region[n] for n in names] for region in scan] for scan in head] for head in found])
    kinds = [kind for kind, masks in heads[0][1].items() for _ in masks]
    measured = np.array([reliability(table[..., k], kinds) for k in range(len(names))])
    return _rows(method.name, data.modality, names, measured, scans=sum(len(scans) for scans, _ in heads))


def _rows(method: str, modality: str, names: Sequence[str], measured: Array, scans: int) -> list[Row]:
    """Shares of reliable features and median ICC; the classes of features over all regions only."""
    prefixes = np.array([name.split("_")[0] for name in names])
    overall, within = measured.T
    chosen = {"all features": overall, "all features, within kinds of region": within}
    chosen |= {title: overall[prefixes == prefix] for prefix, title in CLASSES.items()}
    rows = []
    for title, values in chosen.items():
        share = _share(values)
        quarter, half, most = np.percentile(values, [25, 50, 75])
        metrics = {
            f"share with ICC > {GOOD}, {title}": share,
            f"median ICC, {title}": (float(half), float(most - quarter) / NORMAL_RANGE),
        }
        rows += [
            Row(
                tier=TIER,
                modality=modality,
                metric=metric,
                method=method,
                value=value,
                spread=spread,
                n=len(values),
                better="higher",
                scans_used=scans,
            )
            for metric, (value, spread) in metrics.items()
        ]
    return rows


def _share(values: Array) -> tuple[float, float]:
    """Share of reliable features and its binomial standard error."""
    share = float(np.mean(values > GOOD))
    return share, float(np.sqrt(share * (1 - share) / len(values)))
