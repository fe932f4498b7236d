"""What an edit does as a whole: a rising curve, whatever the edit does from place to place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.imaging.brain import TissueLevels
from bids_harmonize.measures.overall_curve import POINTS, OverallCurve

GAMMA, FACTOR = 0.7, 40.0


def edited(before: np.ndarray) -> np.ndarray:
    return (FACTOR * before**GAMMA).astype(np.float32)


@pytest.fixture
def before() -> np.ndarray:
    return np.random.default_rng(0).uniform(20, 900, (20, 20, 20)).astype(np.float32)


def levels(csf: float, grey: float, white: float) -> TissueLevels:
    return TissueLevels(csf=csf, grey_matter=grey, white_matter=white)


def everywhere(volume: np.ndarray) -> np.ndarray:
    return np.ones(volume.shape, dtype=bool)


def test_a_curve_that_is_the_same_everywhere_is_found(before: np.ndarray) -> None:
    curve = OverallCurve.of(before, edited(before), everywhere(before))
    inputs = np.log(np.linspace(60, 850, 50))
    np.testing.assert_allclose(curve(inputs), np.log(FACTOR) + GAMMA * inputs, atol=0.01)
    np.testing.assert_allclose(curve.inverse(curve(inputs)), inputs, atol=1e-9)


def test_a_field_that_the_edit_evens_does_not_flatten_the_curve() -> None:
    rng = np.random.default_rng(1)
    # Two tissues that are all but uniform, under a receive field of ± 30 %.
    tissue = np.where(rng.random((24, 24, 24)) < 0.5, 300.0, 500.0) * np.exp(
        rng.normal(0, 0.02, (24, 24, 24))
    )
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij")
    field = np.exp(0.2 * x - 0.15 * y + 0.1 * z**2)
    before, after = (tissue * field).astype(np.float32), edited(tissue)
    curve = OverallCurve.of(before, after, everywhere(before))
    rise = curve(np.log(np.array([300.0, 500.0])))
    assert np.diff(rise)[0] == pytest.approx(GAMMA * np.log(500 / 300), rel=0.05)
    within = curve(np.log(np.array([490.0, 510.0])))
    assert np.diff(within)[0] == pytest.approx(GAMMA * np.log(510 / 490), rel=0.3)


def test_levels_of_tissues_make_a_curve_whatever_their_order() -> None:
    curve = OverallCurve.of_levels(levels(300.0, 900.0, 100.0), levels(40.0, 80.0, 30.0))
    assert curve(np.log(np.array([100.0, 300.0, 900.0]))) == pytest.approx(np.log([30.0, 40.0, 80.0]))
    assert curve.white_matter == pytest.approx(np.log(100.0), abs=1e-6)
    other = OverallCurve.of_levels(levels(100.0, 300.0, 900.0), levels(30.0, 40.0, 80.0))
    assert (other.inputs, other.outputs) == (curve.inputs, curve.outputs)
    assert other.white_matter == pytest.approx(np.log(900.0), abs=1e-6)
    assert not OverallCurve.of_levels(levels(0.0, 300.0, 900.0), levels(0.0, 40.0, 80.0)).known


def test_only_the_region_counts(before: np.ndarray) -> None:
    after = edited(before)
    after[10:] *= 9
    region = everywhere(before)
    region[10:] = False
    curve = OverallCurve.of(before, after, region)
    assert curve(np.log(np.array([400.0]))) == pytest.approx(np.log(edited(np.array([400.0]))), abs=0.01)


def test_beyond_what_was_seen_there_is_a_mere_gain(before: np.ndarray) -> None:
    curve = OverallCurve.of(before, edited(before), everywhere(before))
    ends = np.array([curve.inputs[0] - 2, curve.inputs[-1] + 3])
    assert curve(ends) == pytest.approx([curve.outputs[0] - 2, curve.outputs[-1] + 3])


def test_of_too_little_nothing_is_known() -> None:
    few = np.ones((POINTS - 1, 1, 1), dtype=np.float32)
    assert not OverallCurve.of(few, few, everywhere(few)).known
    assert not OverallCurve().known


@given(
    st.lists(
        st.tuples(st.floats(1, 1e4, width=32), st.floats(1, 1e4, width=32)), min_size=POINTS, max_size=200
    )
)
def test_whatever_the_edit_the_curve_rises_and_survives_its_file(pairs: list[tuple[float, float]]) -> None:
    volumes = np.array(pairs, dtype=np.float32).T[..., None, None]
    curve = OverallCurve.of(volumes[0], volumes[1], everywhere(volumes[0]))
    assert curve.known
    assert np.all(np.diff(curve.inputs) > 0)
    assert np.all(np.diff(curve.outputs) > 0)
    assert OverallCurve.from_json(curve.to_json(), Path("a.json")) == curve
