"""Slices: across which axis, where, and how large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bids_harmonize.imaging.slices import (
    fullest_slice,
    slice_at,
    slice_axis,
    slice_extent,
    slices_at_shares,
    voxels_per_slice,
)

axes = st.integers(0, 2)
masks = arrays(np.bool_, st.tuples(*[st.integers(1, 6)] * 3))


@pytest.mark.parametrize(
    ("zooms", "axis"),
    [
        ((1.0, 1.0, 1.0), 2),
        ((1.0, 1.33, 1.33), 2),
        ((1.2, 1.0, 1.0), 2),
        ((0.5, 0.5, 3.0), 2),
        ((4.0, 0.5, 0.5), 0),
        ((1.0, 3.0, 1.0), 1),
    ],
)
def test_slices_lie_across_the_thickest_voxels(zooms: tuple[float, float, float], axis: int) -> None:
    assert slice_axis(zooms) == axis


@pytest.mark.parametrize(("axis", "extent"), [(0, (30.0, 12.0)), (1, (20.0, 12.0)), (2, (20.0, 30.0))])
def test_a_slice_is_as_large_as_its_voxels_together(axis: int, extent: tuple[float, float]) -> None:
    assert slice_extent((10, 20, 3), (2.0, 1.5, 4.0), axis) == extent


@given(masks, axes)
def test_slices_hold_all_of_a_mask(mask: np.ndarray, axis: int) -> None:
    counts = voxels_per_slice(mask, axis)
    assert counts.shape == (mask.shape[axis],)
    assert [np.count_nonzero(slice_at(mask, axis, index)) for index in range(len(counts))] == list(counts)
    assert counts[fullest_slice(mask, axis)] == counts.max()


@given(masks.filter(np.any), axes, st.lists(st.floats(0, 1), min_size=1, max_size=4).map(sorted))
def test_as_much_of_a_mask_lies_below_as_was_asked_for(
    mask: np.ndarray, axis: int, shares: list[float]
) -> None:
    counts = voxels_per_slice(mask, axis)
    indices = slices_at_shares(mask, axis, shares)
    assert indices == sorted(indices)
    for index, share in zip(indices, shares, strict=True):
        assert counts[:index].sum() <= share * counts.sum() <= counts[: index + 1].sum()


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_slice_is_not_copied(order: str) -> None:
    volume = np.zeros((3, 4, 5), dtype=np.float32, order=order)
    assert all(np.shares_memory(slice_at(volume, axis, 1), volume) for axis in range(3))
    assert slice_at(volume, 1, 0).shape == (3, 5)
