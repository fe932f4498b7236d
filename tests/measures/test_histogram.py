"""How intensities are spread: shares that do not depend on units, storage or the number of scans."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.measures.histogram import (
    HISTOGRAM_BINS,
    PERCENTILES,
    ReferenceIntensities,
    tissue_histogram,
)
from bids_harmonize.training.reference_group import ReferenceScan
from tests.helpers.toy_heads import ball_scan


@pytest.fixture(scope="module")
def measured(small_group: list[ReferenceScan]) -> ReferenceIntensities:
    return ReferenceIntensities.of_group([scan.tissue(1000.0) for scan in small_group])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 5))
def test_shares_are_of_all_values(seed: int, top: float) -> None:
    values = np.random.default_rng(seed).exponential(1, 4000).astype(np.float32)
    shares = tissue_histogram(values, top)
    assert shares.shape == (HISTOGRAM_BINS,)
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(np.mean(values <= top), abs=1e-6)


def test_shares_lie_where_the_values_do() -> None:
    shares = tissue_histogram(np.full(100, 30.0, dtype=np.float32), 80.0)
    assert np.average(np.arange(HISTOGRAM_BINS) + 0.5, weights=shares) == pytest.approx(30, abs=0.1)
    assert shares[[27, 28, 29, 30, 31, 32]].sum() > 0.99


def test_scans_stored_in_few_integers_show_no_comb() -> None:
    values = np.linspace(0, 80, 400_001, dtype=np.float32)
    # Bins 1.0 wide, integers 1.4 apart: without smoothing, some bins would be empty.
    coarse = np.float32(1.4) * np.round(values / np.float32(1.4))
    assert np.ptp(tissue_histogram(coarse, 80.0)[3:-3]) < 0.05 / HISTOGRAM_BINS


def test_no_values_have_no_share() -> None:
    assert not tissue_histogram(np.zeros(0, dtype=np.float32), 1.0).any()


def test_the_group_is_in_the_unit_of_the_outputs(measured: ReferenceIntensities) -> None:
    # Scalp is 1200 where white matter is 900, and grey matter 600.
    assert 1300 < measured.top < 1600
    median = measured.shares[PERCENTILES.index(50)]
    middles = (np.arange(HISTOGRAM_BINS) + 0.5) * measured.top / HISTOGRAM_BINS
    peak = middles[np.argmax(np.where(middles > 1200, median, 0))]
    assert peak == pytest.approx(1000 * 1200 / 900, abs=40)
    assert np.all(np.diff(measured.shares, axis=0) >= 0)


@pytest.mark.parametrize("factor", [0.01, 37.0])
def test_the_scanner_s_unit_does_not_matter(
    small_group: list[ReferenceScan], measured: ReferenceIntensities, factor: float
) -> None:
    other = [
        replace(
            scan,
            volume=scan.volume * np.float32(factor),
            reference_intensity=scan.reference_intensity * factor,
        )
        for scan in small_group
    ]
    again = ReferenceIntensities.of_group([scan.tissue(1000.0) for scan in other])
    assert again.top == measured.top
    np.testing.assert_allclose(again.shares, measured.shares, atol=1e-4)


def test_one_scan_is_its_own_band() -> None:
    alone = ReferenceIntensities.of_group([ball_scan(0).tissue(1000.0)])
    np.testing.assert_array_equal(alone.shares[0], alone.shares[-1])


def test_the_card_keeps_it_and_is_small(measured: ReferenceIntensities) -> None:
    text = json.dumps(measured.card())
    assert len(text) < 20_000
    again = ReferenceIntensities.of_card(json.loads(text))
    assert again.top == measured.top
    np.testing.assert_allclose(again.shares, measured.shares, rtol=1e-3)


@pytest.mark.parametrize(
    "damage",
    [
        {"Top": 0},
        {"Top": None},
        {"Percentile50": [1.0]},
        {"Percentile5": None},
        {"Percentile95": ["x"] * HISTOGRAM_BINS},
    ],
)
def test_a_damaged_card_is_refused(measured: ReferenceIntensities, damage: dict) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        ReferenceIntensities.of_card(measured.card() | damage)
