"""Distances of scans and sites: by hand, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.measures.site_distance import site_distances


def curves(seed: int, scans: int = 7, levels: int = 9) -> np.ndarray:
    """Quantile functions: rising."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.uniform(0.1, 1, (scans, levels)), axis=1)


SITES = ["b", "a", "a", None, "b", "c", "a"]


def test_distances_by_hand() -> None:
    # Medians: of all 10..20, of a 10..20, of b 13..23; the span is 10.
    straight = np.linspace(10, 20, 11)
    found = site_distances(
        straight + np.array([[0], [0], [0], [1], [3], [3]]), ["a", "a", "a", None, "b", "b"]
    )
    pooled = straight + 0.5
    assert found.pooled == pytest.approx(pooled)
    assert found.sites == ("a", "b")
    assert found.between == pytest.approx(np.array([[0, 0.3], [0.3, 0]]))
    assert found.to_pooled == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.25, 0.25])
    assert found.to_own_site[[0, 1, 2, 4, 5]] == pytest.approx(0)
    assert np.isnan(found.to_own_site[3])


@given(st.integers(0, 10_000))
def test_sites_are_at_no_distance_from_themselves_and_at_equal_ones_from_each_other(seed: int) -> None:
    between = site_distances(curves(seed), SITES).between
    assert np.all(np.diag(between) == 0)
    assert between == pytest.approx(between.T)
    assert np.all(between[~np.eye(3, dtype=bool)] > 0)
    assert np.all(between[0, 1] <= between[0, 2] + between[2, 1] + 1e-12)


@given(st.integers(0, 10_000), st.floats(1e-3, 1e5), st.floats(-1e3, 1e3))
def test_neither_a_unit_nor_an_offset_moves_sites(seed: int, gain: float, offset: float) -> None:
    one = site_distances(curves(seed), SITES)
    other = site_distances(gain * curves(seed) + offset * gain, SITES)
    for name in ("between", "to_pooled", "to_own_site"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6, abs=1e-9, nan_ok=True)


@given(st.integers(0, 10_000))
def test_the_order_of_scans_does_not_matter(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(SITES))
    one = site_distances(curves(seed), SITES)
    other = site_distances(curves(seed)[order], [SITES[n] for n in order])
    assert other.between == pytest.approx(one.between)
    assert other.to_pooled == pytest.approx(one.to_pooled[order])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sites", [[None] * 3, ["a"] * 3])
def test_no_site_or_one(sites: list[str | None]) -> None:
    found = site_distances(np.ones((3, 5)), sites)
    assert found.between.shape == (len(found.sites),) * 2
    assert found.to_pooled == pytest.approx(0)
