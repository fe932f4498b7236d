"""The summary of an edit says what was done to the image."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bids_harmonize import safety
from bids_harmonize.grid import KNOTS
from bids_harmonize.safety import distribution_distance, summarize_edit

BEFORE = np.random.default_rng(0).uniform(0, 1000, (20, 21, 22)).astype(np.float32)
few = settings(max_examples=30)


@few
@given(st.floats(0.01, 100))
def test_one_factor_for_all_is_the_gain(factor: float) -> None:
    summary = summarize_edit(BEFORE, BEFORE * np.float32(factor), 1000)
    assert summary["Gain"]["Median"] == pytest.approx(factor, rel=1e-4)
    for name in ("Minimum", "Percentile1", "Percentile99", "Maximum"):
        assert summary["Gain"][name] == pytest.approx(1, rel=1e-4)
    assert summary["OrderViolations"]["Pairs"] == 0
    assert summary["OrderViolations"]["Edges"] > 1000
    assert json.loads(json.dumps(summary)) == summary


@few
@given(st.floats(0.3, 3))
def test_a_rising_curve_violates_no_order(power: float) -> None:
    after = (1000 * (BEFORE / 1000) ** power).astype(np.float32)
    assert summarize_edit(BEFORE, after, 1000)["OrderViolations"]["Pairs"] == 0


def test_an_inverted_image_violates_every_edge() -> None:
    violations = summarize_edit(BEFORE, 1000 - BEFORE, 1000)["OrderViolations"]
    assert violations["Pairs"] == violations["Edges"] > 0


def test_one_reversed_voxel_is_counted_with_each_neighbour_in_its_plane() -> None:
    before = np.full((5, 5, 5), 500, np.float32)
    before[2, 2, 2] = 600
    after = before.copy()
    after[2, 2, 2] = 400
    violations = summarize_edit(before, after, 1000)["OrderViolations"]
    assert (violations["Pairs"], violations["Edges"]) == (4, 4)


def test_noise_is_no_edge() -> None:
    before = np.full((5, 5, 5), 500, np.float32)
    before[2, 2, 2] = 510
    violations = summarize_edit(before, 1000 - before, 1000)["OrderViolations"]
    assert (violations["Pairs"], violations["Edges"]) == (0, 0)


def test_background_does_not_count_in_the_gain() -> None:
    before, after = BEFORE.copy(), 2 * BEFORE
    before[:5], after[:5] = 1.0, 1e6
    assert summarize_edit(before, after, 1000)["Gain"]["Maximum"] == pytest.approx(1)


def test_gain_range_holds_what_one_voxel_does() -> None:
    before = np.full((10, 10, 10), 500, np.float32)
    after = before.copy()
    after[0, 0, 0], after[1, 0, 0] = 1500, 50
    gain = summarize_edit(before, after, 1000)["Gain"]
    assert gain == {"Median": 1, "Minimum": 0.1, "Percentile1": 1, "Percentile99": 1, "Maximum": 3}


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 1, 20), (20, 20, 1), (20, 1, 1), (1, 1, 20)])
def test_flat_volumes(shape: tuple[int, ...]) -> None:
    before = np.random.default_rng(0).uniform(200, 1000, shape).astype(np.float32)
    assert summarize_edit(before, 3 * before, 1000)["Gain"]["Median"] == pytest.approx(3)


def test_large_volumes_are_sampled_and_the_summary_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert summarize_edit(BEFORE, BEFORE, 1000)["OrderViolations"]["PlanesSampled"] == "1 of 1"
    monkeypatch.setattr(safety, "LARGEST_SAMPLE", BEFORE.size // 4)
    summary = summarize_edit(BEFORE, 1000 - BEFORE, 1000)
    assert summary["OrderViolations"]["PlanesSampled"] == "1 of 4"
    assert summary["OrderViolations"]["Pairs"] == summary["OrderViolations"]["Edges"]


def features(value: float) -> NDArray[np.float32]:
    """Global features whose density, the first half, must not matter."""
    return np.concatenate([np.full(KNOTS, 99.0), np.full(KNOTS, value)]).astype(np.float32)


@few
@given(st.floats(-10, 10))
def test_distance_is_in_standard_deviations(deviations: float) -> None:
    card = {"Mean": [0.5] * (2 * KNOTS), "StandardDeviation": [0.1] * (2 * KNOTS)}
    distance = distribution_distance(features(0.5 + 0.1 * deviations), card)
    assert distance == pytest.approx(abs(deviations), rel=1e-4, abs=1e-4)


def test_features_that_never_varied_in_training_are_left_out() -> None:
    card = {"Mean": [0.5] * (2 * KNOTS), "StandardDeviation": [0.1] * (2 * KNOTS - 10) + [0.0] * 10}
    assert distribution_distance(features(0.6), card) == pytest.approx(1, rel=1e-4)
