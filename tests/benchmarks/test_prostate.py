"""Histogram intersection: what it must be for the same, for other and for disjoint distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.tiers.prostate import intersection

pytestmark = pytest.mark.benchmark

EDGES = np.linspace(0, 10, 11)
values = st.lists(st.floats(-5, 15), min_size=1, max_size=50).map(np.array)


@given(values, values)
def test_it_is_symmetric_and_a_share(first: np.ndarray, second: np.ndarray) -> None:
    common = intersection(first, second, EDGES)
    assert common == intersection(second, first, EDGES)
    assert 0 <= common <= 1 + 1e-9
    assert intersection(first, first, EDGES) == pytest.approx(1)
    # How many voxels there are does not matter.
    assert intersection(np.repeat(first, 3), second, EDGES) == pytest.approx(common)


def test_by_hand() -> None:
    first, second = np.array([0.5, 1.5, 2.5, 2.6]), np.array([2.4, 2.2, 9.9, 30.0])
    assert intersection(first, second, EDGES) == 0.5
    assert intersection(np.zeros(4), np.full(4, 9.0), EDGES) == 0
