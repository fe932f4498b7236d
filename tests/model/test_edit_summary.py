"""The summary of an edit says what was done to the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bids_harmonize.model import edit_summary
from bids_harmonize.model.bilateral_grid import KNOTS
from bids_harmonize.model.card_entries import InputDistribution
from bids_harmonize.model.edit_summary import Edit, Gain, distribution_distance, summarize_edit

BEFORE = np.random.default_rng(0).uniform(0, 1000, (20, 21, 22)).astype(np.float32)
few = settings(max_examples=30)


@few
@given(st.floats(0.01, 100))
def test_one_factor_for_all_is_the_gain(factor: float) -> None:
    summary = summarize_edit(BEFORE, BEFORE * np.float32(factor), 1000)
    assert summary.gain.median == pytest.approx(factor, rel=1e-4)
    gain = summary.gain
    for end in (gain.minimum, gain.percentile_1, gain.percentile_99, gain.maximum):
        assert end == pytest.approx(1, rel=1e-4)
    assert summary.order_violations.pairs == 0
    assert summary.order_violations.edges > 1000
    assert Edit.from_json(json.loads(json.dumps(summary.to_json())), Path("x")) == summary


@few
@given(st.floats(0.3, 3))
def test_a_rising_curve_violates_no_order(power: float) -> None:
    after = (1000 * (BEFORE / 1000) ** power).astype(np.float32)
    assert summarize_edit(BEFORE, after, 1000).order_violations.pairs == 0


def test_an_inverted_image_violates_every_edge() -> None:
    violations = summarize_edit(BEFORE, 1000 - BEFORE, 1000).order_violations
    assert violations.pairs == violations.edges > 0


def test_one_reversed_voxel_is_counted_with_each_neighbour_in_its_plane() -> None:
    before = np.full((5, 5, 5), 500, np.float32)
    before[2, 2, 2] = 600
    after = before.copy()
    after[2, 2, 2] = 400
    violations = summarize_edit(before, after, 1000).order_violations
    assert (violations.pairs, violations.edges) == (4, 4)


def test_noise_is_no_edge() -> None:
    before = np.full((5, 5, 5), 500, np.float32)
    before[2, 2, 2] = 510
    violations = summarize_edit(before, 1000 - before, 1000).order_violations
    assert (violations.pairs, violations.edges) == (0, 0)


def test_background_does_not_count_in_the_gain() -> None:
    before, after = BEFORE.copy(), 2 * BEFORE
    before[:5], after[:5] = 1.0, 1e6
    assert summarize_edit(before, after, 1000).gain.maximum == pytest.approx(1)


def test_gain_range_holds_what_one_voxel_does() -> None:
    before = np.full((10, 10, 10), 500, np.float32)
    after = before.copy()
    after[0, 0, 0], after[1, 0, 0] = 1500, 50
    gain = summarize_edit(before, after, 1000).gain
    assert gain == Gain(median=1, minimum=0.1, percentile_1=1, percentile_99=1, maximum=3)


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 1, 20), (20, 20, 1), (20, 1, 1), (1, 1, 20)])
def test_flat_volumes(shape: tuple[int, ...]) -> None:
    before = np.random.default_rng(0).uniform(200, 1000, shape).astype(np.float32)
    assert summarize_edit(before, 3 * before, 1000).gain.median == pytest.approx(3)


def test_large_volumes_are_sampled_and_the_summary_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert summarize_edit(BEFORE, BEFORE, 1000).order_violations.planes_sampled == "1 of 1"
    monkeypatch.setattr(edit_summary, "MAX_SAMPLE", BEFORE.size // 4)
    summary = summarize_edit(BEFORE, 1000 - BEFORE, 1000)
    assert summary.order_violations.planes_sampled == "1 of 4"
    assert summary.order_violations.pairs == summary.order_violations.edges


def features(value: float) -> NDArray[np.float32]:
    """Global features whose density, the first half, must not matter."""
    return np.concatenate([np.full(KNOTS, 99.0), np.full(KNOTS, value)]).astype(np.float32)


@few
@given(st.floats(-10, 10))
def test_distance_is_in_standard_deviations(deviations: float) -> None:
    inputs = InputDistribution(mean=[0.5] * (2 * KNOTS), standard_deviation=[0.1] * (2 * KNOTS))
    distance = distribution_distance(features(0.5 + 0.1 * deviations), inputs)
    assert distance == pytest.approx(abs(deviations), rel=1e-4, abs=1e-4)


def test_features_that_never_varied_in_training_are_left_out() -> None:
    spread = [0.1] * (2 * KNOTS - 10) + [0.0] * 10
    inputs = InputDistribution(mean=[0.5] * (2 * KNOTS), standard_deviation=spread)
    assert distribution_distance(features(0.6), inputs) == pytest.approx(1, rel=1e-4)
