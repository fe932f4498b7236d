"""Reliability and spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.tiers.statistics import (
    bootstrap_error,
    coefficient_of_variation,
    intraclass_correlation,
)

pytestmark = pytest.mark.benchmark

# Shrout & Fleiss 1979, table 2: six targets by four judges.
PUBLISHED = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]])


def table(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 1)) * rng.uniform(0, 3) + rng.normal(size=4) + rng.normal(size=(6, 4))


def test_published_example() -> None:
    # Their table 4 rounds the same way.
    assert round(intraclass_correlation(PUBLISHED), 2) == 0.29


def test_perfect_agreement() -> None:
    assert intraclass_correlation(np.outer([1.0, 2, 5], np.ones(4))) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_ratings_that_never_vary_agree_on_nothing(value: float) -> None:
    assert intraclass_correlation(np.full((5, 3), value)) == 0


def test_a_rating_that_is_none_is_no_reliability() -> None:
    ratings = PUBLISHED.copy()
    ratings[2, 1] = np.nan
    assert np.isnan(intraclass_correlation(ratings))


def test_raters_of_different_level_do_not_agree() -> None:
    ratings = np.outer([1.0, 2, 5], np.ones(4))
    assert intraclass_correlation(ratings + np.arange(4)) < 0.85


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-1000, 1000))
def test_unit_and_order_do_not_matter(seed: int, slope: float, offset: float) -> None:
    ratings = table(seed)
    shuffled = np.random.default_rng(seed).permutation(slope * ratings[:, ::-1] + offset)
    assert intraclass_correlation(shuffled) == pytest.approx(intraclass_correlation(ratings), abs=1e-6)


@given(st.integers(0, 10_000))
def test_reliability_is_at_most_one(seed: int) -> None:
    assert intraclass_correlation(table(seed)) <= 1


@given(st.floats(0.01, 100))
def test_variation_has_no_unit(unit: float) -> None:
    values = np.array([1.0, 2, 4])
    assert coefficient_of_variation(unit * values) == pytest.approx(coefficient_of_variation(values))
    assert coefficient_of_variation(values) == pytest.approx(np.std(values, ddof=1) / values.mean())


def test_variation_around_zero_means_nothing() -> None:
    assert np.isnan(coefficient_of_variation(np.array([-1.0, 1, -2])))


def test_bootstrap_error_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=400)
    assert bootstrap_error(values, lambda v: float(v.mean())) == pytest.approx(0.05, rel=0.15)
