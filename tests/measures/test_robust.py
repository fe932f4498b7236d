"""Robust deviations: what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.measures.robust import robust_deviations


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
