"""Alterations by tone curves: they rise, can be replayed, and do nothing at strength 0."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.training.alterations.tone import SurroundingGain, ToneCurve

seeds = st.integers(0, 2**31)
LEVELS = np.linspace(0, 3, 301, dtype=np.float32).reshape(7, 43, 1)


@given(seeds, st.floats(0, 1))
def test_tone_curve_rises_from_zero_through_one(seed: int, strength: float) -> None:
    curve = ToneCurve.sample(np.random.default_rng(seed), strength)
    mapped = curve.apply(LEVELS)
    assert mapped.shape == LEVELS.shape
    assert mapped.dtype == np.float32
    assert mapped.flat[0] == 0
    assert mapped.flat[100] == pytest.approx(1, rel=1e-5)
    assert np.all(np.diff(mapped.ravel()) > 0)


@given(seeds)
def test_tone_curve_of_strength_zero_changes_nothing(seed: int) -> None:
    curve = ToneCurve.sample(np.random.default_rng(seed), strength=0.0)
    np.testing.assert_allclose(curve.apply(LEVELS), LEVELS, rtol=1e-5, atol=1e-6)


@given(seeds)
def test_tone_curve_is_replayed_from_json(seed: int) -> None:
    curve = ToneCurve.sample(np.random.default_rng(seed))
    again = ToneCurve(**json.loads(json.dumps(asdict(curve))))
    np.testing.assert_array_equal(again.apply(LEVELS), curve.apply(LEVELS))
    assert curve == ToneCurve.sample(np.random.default_rng(seed))


@given(seeds)
def test_tone_curve_goes_on_beyond_one_with_its_last_slope(seed: int) -> None:
    curve = ToneCurve.sample(np.random.default_rng(seed))
    far = curve.apply(np.array([1, 2, 5], dtype=np.float32))
    np.testing.assert_allclose(np.diff(far), [curve.slopes[-1], 3 * curve.slopes[-1]], rtol=1e-5)


def test_tone_curve_by_hand() -> None:
    curve = ToneCurve(slopes=(0.5, 1.5))
    levels = np.array([0, 0.25, 0.5, 0.75, 1, 1.5], dtype=np.float32)
    np.testing.assert_allclose(curve.apply(levels), [0, 0.125, 0.25, 0.625, 1, 1.75])


def test_tone_curves_differ_enough_to_change_the_contrast() -> None:
    curves = [ToneCurve.sample(np.random.default_rng(seed)) for seed in range(100)]
    middle = [float(curve.apply(np.full(1, 0.5, np.float32))[0]) for curve in curves]
    assert min(middle) < 0.4
    assert max(middle) > 0.6


@given(seeds)
def test_surrounding_gain_leaves_the_inside(seed: int) -> None:
    gain = SurroundingGain.sample(np.random.default_rng(seed))
    assert 1 / 4.1 < gain.gain < 4.1
    inside = np.linspace(0, 1, LEVELS.size, dtype=np.float32).reshape(LEVELS.shape)
    result = gain.apply(LEVELS + 1, inside)
    assert result.dtype == np.float32
    assert result.flat[0] == pytest.approx(gain.gain, rel=1e-5)
    assert result.flat[-1] == pytest.approx(4, rel=1e-5)
    ratio = (result / (LEVELS + 1)).ravel()
    assert min(1, gain.gain) * (1 - 1e-5) <= ratio.min() <= ratio.max() <= max(1, gain.gain) * (1 + 1e-5)


@given(seeds)
def test_surrounding_gain_of_strength_zero_changes_nothing(seed: int) -> None:
    gain = SurroundingGain.sample(np.random.default_rng(seed), strength=0.0)
    np.testing.assert_allclose(gain.apply(LEVELS, np.zeros_like(LEVELS)), LEVELS, rtol=1e-6)
