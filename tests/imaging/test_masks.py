"""Masks of heads and of tissue."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.masks import (
    head_mask,
    middle_tissue,
    within,
)


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
