"""Blocks of about 2 mm: how a grid is divided, and the means of its parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.imaging.blocks import WORKING_MM, Blocks, block_means


def test_block_means_by_hand() -> None:
    volume = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    # The third of y and the fifth of z are left out.
    assert block_means(volume, (2, 2, 2)).tolist() == [[[10.5, 12.5]]]
    assert block_means(volume, (1, 1, 1)).tolist() == volume.tolist()


@given(st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.floats(0.2, 6)] * 3))
def test_blocks_are_about_2_mm_where_voxels_are_smaller(
    shape: tuple[int, int, int], zooms: tuple[float, float, float]
) -> None:
    blocks = Blocks.of(shape, zooms)
    for voxels, zoom, step, size in zip(shape, zooms, blocks.steps, blocks.zooms, strict=True):
        assert 1 <= step <= voxels
        assert size == pytest.approx(step * zoom)
        assert size <= max(zoom, WORKING_MM * 1.5)
    means = blocks.means(np.ones(shape, dtype=np.float32))
    assert means.shape == tuple(n // step for n, step in zip(shape, blocks.steps, strict=True))
    np.testing.assert_allclose(means, 1, rtol=1e-4)
