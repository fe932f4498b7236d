"""Agreement, distances of sites, deviations, accuracy: closed forms, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.metrics import agreement_db, balanced_accuracy, compare_sites, robust_deviations

A = np.random.default_rng(0).uniform(0, 1000, 5000).astype(np.float32)
ERROR = np.random.default_rng(1).normal(0, 1, 5000).astype(np.float32)
few = settings(max_examples=30)


def test_by_hand() -> None:
    a = np.arange(10_001, dtype=np.float32)
    # The 1 to 99 % range of both together is about 9800 wide: -20 log10(98 / 9800).
    assert agreement_db(a, a + 98) == pytest.approx(40, abs=0.1)


@few
@given(st.floats(1e-3, 1e5), st.floats(-1e3, 1e3))
def test_neither_unit_nor_offset_matters(factor: float, offset: float) -> None:
    b = A + 30 * ERROR
    scaled = agreement_db(A * np.float64(factor) + offset, b * np.float64(factor) + offset)
    assert scaled == pytest.approx(agreement_db(A, b), abs=1e-3)


@few
@given(st.floats(1, 100))
def test_symmetric_and_falling_with_the_error(size: float) -> None:
    near, far = A + np.float32(size) * ERROR, A + np.float32(2 * size) * ERROR
    assert agreement_db(A, near) == pytest.approx(agreement_db(near, A))
    assert agreement_db(A, near) > agreement_db(A, far) + 3


def test_shape_does_not_matter() -> None:
    b = A + ERROR
    assert agreement_db(A.reshape(50, 100), b.reshape(50, 100)) == agreement_db(A, b)


@pytest.mark.filterwarnings("error")
def test_identical_images_agree_without_limit() -> None:
    assert agreement_db(A, A) == np.inf


# Sites


def curves(seed: int, scans: int = 7, levels: int = 9) -> np.ndarray:
    """Quantile functions: rising."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.uniform(0.1, 1, (scans, levels)), axis=1)


SITES = ["b", "a", "a", None, "b", "c", "a"]


def test_distances_by_hand() -> None:
    # Medians: of all 10..20, of a 10..20, of b 13..23; the span is 10.
    straight = np.linspace(10, 20, 11)
    found = compare_sites(
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
    between = compare_sites(curves(seed), SITES).between
    assert np.all(np.diag(between) == 0)
    assert between == pytest.approx(between.T)
    assert np.all(between[~np.eye(3, dtype=bool)] > 0)
    assert np.all(between[0, 1] <= between[0, 2] + between[2, 1] + 1e-12)


@given(st.integers(0, 10_000), st.floats(1e-3, 1e5), st.floats(-1e3, 1e3))
def test_neither_a_unit_nor_an_offset_moves_sites(seed: int, gain: float, offset: float) -> None:
    one = compare_sites(curves(seed), SITES)
    other = compare_sites(gain * curves(seed) + offset * gain, SITES)
    for name in ("between", "to_pooled", "to_own_site"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6, abs=1e-9, nan_ok=True)


@given(st.integers(0, 10_000))
def test_the_order_of_scans_does_not_matter(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(SITES))
    one = compare_sites(curves(seed), SITES)
    other = compare_sites(curves(seed)[order], [SITES[n] for n in order])
    assert other.between == pytest.approx(one.between)
    assert other.to_pooled == pytest.approx(one.to_pooled[order])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sites", [[None] * 3, ["a"] * 3])
def test_no_site_or_one(sites: list[str | None]) -> None:
    found = compare_sites(np.ones((3, 5)), sites)
    assert found.between.shape == (len(found.sites),) * 2
    assert found.to_pooled == pytest.approx(0)


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-100, 100))
def test_deviations_have_no_unit(seed: int, gain: float, offset: float) -> None:
    values = np.random.default_rng(seed).normal(size=21)
    moved = robust_deviations(gain * values + offset, 0.001 * gain)
    assert moved == pytest.approx(robust_deviations(values, 0.001), abs=1e-6)


def test_one_far_value_moves_no_other() -> None:
    values = np.random.default_rng(0).normal(size=101)
    far = np.append(values, 1e6)
    assert robust_deviations(far, 0.01)[:-1] == pytest.approx(robust_deviations(values, 0.01), abs=0.05)
    assert robust_deviations(far, 0.01)[-1] > 1e5
    assert robust_deviations(np.array([1.0, 1, 1, 1.01]), 0.02)[-1] == pytest.approx(0.5)


# Accuracy


def test_every_class_counts_as_much() -> None:
    true = ["a"] * 8 + ["b"] * 2
    assert balanced_accuracy(true, ["a"] * 10)[0] == pytest.approx(0.5)
    assert balanced_accuracy(true, true)[0] == 1


def test_interval_holds_the_accuracy_and_is_wide_for_few_scans() -> None:
    true = [f"{k % 2}" for k in range(40)]
    found = [label if k % 10 < 8 else "2" for k, label in enumerate(true)]
    few, many = (balanced_accuracy(true[:n], found[:n]) for n in (10, 40))
    low, high = np.percentile(many[1], [2.5, 97.5])
    assert low < many[0] < high
    assert few[1].std() > 1.5 * many[1].std()
    assert few[1].min() >= 0 and few[1].max() <= 1
