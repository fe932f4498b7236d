"""Tissues of the brain: against the phantom's truth, and against k-means as scipy does it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.tissues import (
    BRIGHTEST_SHARE,
    DARKEST_SHARE,
    INITIAL_QUANTILES,
    MAX_ITERATIONS,
    TISSUE_ORDER,
    tissue_limits,
    tissues,
    white_and_grey,
)
from bids_harmonize.phantom.anatomy import PHANTOM_LABELS, Head
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.simulation.protocols import Protocol
from tests.helpers.toy_heads import HEAD_GRID, MPRAGE, T2_SPIN_ECHO

BRAIN = ("white matter", "grey matter", "deep grey matter", "csf")
FLAIR = Protocol(field_strength=3.0, sequence="inversion recovery", tr=9000, te=120, ti=2500)
PROTOCOLS = {"T1w": MPRAGE, "T2w": T2_SPIN_ECHO, "FLAIR": FLAIR}
RECEIVER = Receiver(gain=700, snr=40, shading=0.1)

seeds = st.integers(0, 2**31)


def truth(head: Head, names: tuple[str, ...] = BRAIN) -> NDArray[np.bool_]:
    return np.isin(head.labels_on(HEAD_GRID), [PHANTOM_LABELS.index(name) for name in names])


def brain_values(seed: int, size: int = 3000) -> NDArray[np.float64]:
    """Intensities of three tissues that overlap, in random amounts."""
    rng = np.random.default_rng(seed)
    tissue = rng.choice(3, size, p=rng.dirichlet((2, 4, 4)))
    return np.abs(rng.normal(np.array([200, 500, 800])[tissue], rng.uniform(20, 120)))


@settings(max_examples=40)
@given(seeds, st.sampled_from([None, 1.0, 25.0]))
def test_limits_are_those_of_k_means_by_scipy(seed: int, step: float | None) -> None:
    values = brain_values(seed)
    if step:
        # In scans that are stored as integers many values are the same.
        values = step * np.round(values / step)
    kept = np.sort(values)[int(DARKEST_SHARE * values.size) : int((1 - BRIGHTEST_SHARE) * values.size)]
    start = np.quantile(kept, INITIAL_QUANTILES)
    means = kmeans2(kept[:, None], start[:, None], minit="matrix", iter=MAX_ITERATIONS)[0].ravel()
    expected = [kept[0], (means[0] + means[1]) / 2, (means[1] + means[2]) / 2, kept[-1]]
    assert tissue_limits(values) == pytest.approx(expected, rel=1e-9)


@given(seeds, st.floats(1e-3, 1e4), st.floats(-1e3, 1e3))
def test_limits_follow_unit_and_offset(seed: int, gain: float, offset: float) -> None:
    limits = np.array(tissue_limits(brain_values(seed)))
    moved = tissue_limits(gain * brain_values(seed) + offset)
    assert moved == pytest.approx(gain * limits + offset, rel=1e-6, abs=1e-6 * gain)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 7.0, 1e5]), min_size=1, max_size=300))
def test_limits_rise_however_few_intensities_there_are(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limits = tissue_limits(np.array(values, dtype=np.float32))
    assert list(limits) == sorted(limits)
    assert min(values) <= limits[0] <= limits[-1] <= max(values)


@pytest.mark.parametrize("modality", ["T1w", "T2w"])
def test_white_and_grey_matter_of_the_true_brain(head: Head, modality: str) -> None:
    volume = render(head, PROTOCOLS[modality], HEAD_GRID, RECEIVER, seed=(2,))
    white, grey = white_and_grey(volume, truth(head), modality=modality)
    true_white, true_grey = truth(head, ("white matter",)), truth(head, ("grey matter", "deep grey matter"))
    assert np.median(volume[white]) == pytest.approx(np.median(volume[true_white]), rel=0.12)
    assert not np.any(white & grey)
    assert not np.any((white | grey) & ~truth(head))
    # Voxels of 3.5 mm hold more than one tissue.
    assert np.mean(true_white[white]) > 2 * np.mean(true_white[grey])
    assert np.mean(true_grey[grey]) > 2 * np.mean(true_grey[white])


@pytest.mark.parametrize("modality", TISSUE_ORDER)
def test_fluid_lies_beyond_grey_matter(head: Head, modality: str) -> None:
    volume = render(head, PROTOCOLS[modality], HEAD_GRID, RECEIVER, seed=(2,))
    masks = tissues(volume, truth(head), modality=modality)
    levels = dict(zip(("white matter", "grey matter", "csf"), masks, strict=True))
    medians = [float(np.median(volume[levels[name]])) for name in TISSUE_ORDER[modality]]
    assert medians == sorted(medians)
    true_fluid = truth(head, ("csf",))
    assert np.mean(true_fluid[masks[2]]) > 2 * np.mean(true_fluid[masks[1]])


def test_no_tissues_without_a_brain() -> None:
    volume = np.ones((10, 10, 10), np.float32)
    with pytest.raises(BadData):
        white_and_grey(volume, np.zeros(volume.shape, dtype=bool), modality="T1w")
