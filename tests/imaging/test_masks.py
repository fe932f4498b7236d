"""Masks of the brain and of tissue, against the phantom's truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.masks import (
    brain_mask,
    check_brain,
    head_mask,
    middle_tissue,
    otsu,
    within,
)
from bids_harmonize.phantom.anatomy import PHANTOM_LABELS, Head
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.simulation.protocols import Protocol
from tests.helpers.toy_heads import HEAD_GRID, MPRAGE, T2_SPIN_ECHO

BRAIN = ("white matter", "grey matter", "deep grey matter", "csf")
RECEIVER = Receiver(gain=700, snr=40, shading=0.1)


def truth(head: Head, names: tuple[str, ...] = BRAIN) -> NDArray[np.bool_]:
    return np.isin(head.labels_on(HEAD_GRID), [PHANTOM_LABELS.index(name) for name in names])


def test_brain_of_a_t2w_head(head: Head) -> None:
    volume = render(head, T2_SPIN_ECHO, HEAD_GRID, RECEIVER, seed=(2,))
    found = brain_mask(volume, HEAD_GRID.zooms)
    overlap = 2 * np.sum(found & truth(head)) / (found.sum() + truth(head).sum())
    assert overlap > 0.9
    check_brain(found, HEAD_GRID.zooms)


@pytest.mark.parametrize("protocol", [MPRAGE, T2_SPIN_ECHO], ids=["T1w", "T2w"])
def test_skull_stripped_brain_is_found(head: Head, protocol: Protocol) -> None:
    volume = render(head, protocol, HEAD_GRID, RECEIVER, seed=(2,)) * truth(head)
    brain = brain_mask(volume.astype(np.float32), HEAD_GRID.zooms)
    assert np.sum(brain & truth(head)) > 0.75 * truth(head).sum()


@pytest.mark.parametrize("millilitres", [0, 504, 2304])
def test_what_is_too_small_or_too_large_is_no_brain(millilitres: int) -> None:
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask.ravel()[: millilitres // 8] = True
    with pytest.raises(BadData, match=rf"^no brain was found \(but {millilitres} ml\)$"):
        check_brain(mask, (20.0, 20.0, 20.0))


def test_the_head_has_no_holes_and_no_islands() -> None:
    volume = np.zeros((20, 20, 20), dtype=np.float32)
    volume[3:15, 3:15, 3:15] = 100
    volume[8, 8, 8] = 0
    volume[18, 18, 18] = 100
    mask = head_mask(volume)
    assert mask[8, 8, 8] and not mask[18, 18, 18]
    assert np.count_nonzero(mask) == 12**3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tissue_in_the_middle_is_neither_air_nor_the_rim(axis: int) -> None:
    # Fat around muscle around gas: Otsu's threshold would part fat from muscle.
    rng = np.random.default_rng(3)
    across, along = np.meshgrid(np.arange(80) - 39.5, np.arange(80) - 39.5, indexing="ij")
    radius = np.hypot(across, along)
    plane = np.select([radius < 6, radius < 16, radius < 30], [0.0, 70.0, 500.0], 0.0)
    volume = np.repeat(plane[:, :, None], 6, axis=2)
    volume = np.hypot(volume + rng.normal(0, 6, volume.shape), rng.normal(0, 6, volume.shape))
    zooms = [1.0, 1.0, 1.0]
    zooms[axis] = 4.0
    found = middle_tissue(np.moveaxis(volume, 2, axis).astype(np.float32), zooms)
    found = np.moveaxis(found, axis, 2)
    middle = (np.abs(across) < 20) & (np.abs(along) < 20)
    assert found[middle & (radius > 7.5) & (radius < 29)].all()
    assert not found[radius < 4.5].any()
    assert not found[~middle].any()
    assert found.any(axis=(0, 1)).all()


def test_no_tissue_in_the_middle() -> None:
    volume = np.zeros((40, 40, 40), np.float32)
    volume[:4] = 100
    with pytest.raises(BadData):
        middle_tissue(volume, (1.0, 1.0, 1.0))


@given(st.integers(0, 1000), st.floats(0.1, 0.9), st.floats(1, 1e5))
def test_otsu_parts_two_separate_classes(seed: int, share: float, unit: float) -> None:
    rng = np.random.default_rng(seed)
    bright = rng.random(2000) < share
    values = np.where(bright, rng.uniform(0.8, 1.0, 2000), rng.uniform(0.1, 0.3, 2000)) * unit
    threshold = otsu(values.astype(np.float32)) / unit
    assert 0.29 <= threshold <= 0.81


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    zooms=st.tuples(*[st.sampled_from([0.7, 1.0, 1.875, 2.0, 5.5])] * 3),
    reach=st.sampled_from([0.5, 3.0, 5.0, 8.25]),
    share=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_what_is_within_reach_is_what_distances_say(shape, zooms, reach, share, seed) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    distances = ndimage.distance_transform_edt(~mask, sampling=zooms) if mask.any() else np.inf
    clear = np.abs(distances - reach) > 1e-5
    assert bool(((within(mask, zooms, reach) == (distances <= reach)) | ~clear).all())
