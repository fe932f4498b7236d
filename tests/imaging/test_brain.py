"""Levels of a brain's tissues: what a receive field must not change, and what it is fitted to."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.imaging.brain import Brain, ReceiveField
from bids_harmonize.imaging.masks import within

ZOOMS = (2.0, 3.0, 4.0)
SHAPE = (30, 20, 16)


@pytest.fixture(scope="module")
def brain() -> Brain:
    """Fluid in the middle, white matter around it, cortex at the edge."""
    axes = [(np.arange(n) - (n - 1) / 2) * zoom for n, zoom in zip(SHAPE, ZOOMS, strict=True)]
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")))
    return Brain(
        mask=radius < 28,
        csf=radius < 8,
        white_matter=(radius >= 8) & (radius < 20),
        grey_matter=(radius >= 20) & (radius < 28),
        zooms=ZOOMS,
    )


def shown(brain: Brain, csf: float, grey: float, white: float) -> NDArray[np.float32]:
    volume = np.select([brain.csf, brain.grey_matter, brain.white_matter], [csf, grey, white], 50.0)
    return volume.astype(np.float32)


def test_levels_without_a_field_are_the_medians(brain: Brain) -> None:
    assert astuple(brain.levels(shown(brain, 300, 700, 1000))) == pytest.approx((300, 700, 1000), rel=1e-3)


@settings(max_examples=30)
@given(st.lists(st.floats(-0.4, 0.4), min_size=9, max_size=9), st.floats(0.01, 1e4))
def test_a_smooth_field_and_a_gain_keep_ratios(brain: Brain, coefficients: list[float], gain: float) -> None:
    places = np.argwhere(np.ones(SHAPE, dtype=bool)) * ZOOMS
    field = ReceiveField(centre=places.mean(axis=0), coefficients=np.array([*coefficients, 0.0]))
    # Where it would be cut off it is no polynomial any more.
    log = field.at(places).reshape(SHAPE)
    plain = shown(brain, 300, 700, 1000)
    levels = brain.levels((plain * gain * np.exp(log)).astype(np.float32))
    assert levels.grey_matter / levels.white_matter == pytest.approx(0.7, rel=0.02)
    assert levels.csf / levels.white_matter == pytest.approx(0.3, rel=0.06)


def test_levels_are_those_of_where_a_tissue_is_thick(brain: Brain) -> None:
    volume = shown(brain, 300, 700, 1000)
    # Voxels of cortex hold as much fluid as there is of what is no brain around them.
    outside = ndimage.uniform_filter((~brain.mask).astype(np.float32), 3)
    volume[brain.grey_matter] -= 400 * outside[brain.grey_matter]
    plain, thick = (one.levels(volume).grey_matter for one in (brain, brain.thick))
    assert plain < 660
    assert (700 + plain) / 2 < thick <= 700


def test_where_a_brain_is_thick_it_has_cortex_and_no_deep_grey(brain: Brain) -> None:
    deep = ~within(~brain.mask, brain.zooms, 20)
    with_nuclei = replace(
        brain,
        grey_matter=brain.grey_matter | (brain.white_matter & deep),
        white_matter=brain.white_matter & ~deep,
    )
    thick = with_nuclei.thick
    assert not np.any(thick.grey_matter & deep)
    for mask, whole in ((thick.grey_matter, brain.grey_matter), (thick.csf, brain.csf)):
        assert np.all(whole[mask])
        assert 0.4 < mask.sum() / whole.sum() < 0.9


def test_an_image_without_matter_has_levels_all_the_same(brain: Brain) -> None:
    assert astuple(brain.levels(shown(brain, 300, 0, 0))) == (300, 0, 0)


def test_the_field_is_1_on_average_where_it_was_fitted() -> None:
    rng = np.random.default_rng(0)
    places = [rng.uniform(0, 100, (200, 3)) for _ in range(2)]
    logs = [where[:, 0] / 200 + level for where, level in zip(places, (1.0, 5.0), strict=True)]
    field = ReceiveField.fit(places, logs)
    everywhere = np.concatenate(places)
    assert field.at(everywhere).mean() == pytest.approx(0, abs=1e-6)
    assert np.corrcoef(field.at(everywhere), everywhere[:, 0])[0, 1] > 0.999


def test_lesions_are_no_field(brain: Brain) -> None:
    rng = np.random.default_rng(1)
    places = np.argwhere(np.ones(SHAPE, dtype=bool)) * ZOOMS
    field = ReceiveField(
        centre=places.mean(axis=0), coefficients=np.array([0.1, -0.05, 0.2, 0, 0, 0, 0, 0, 0, 0])
    )
    log = field.at(places).reshape(SHAPE)
    plain = shown(brain, 300, 700, 1000)
    # A fifth of the white matter, all of it on the right.
    lesions = brain.white_matter & (places[:, 0].reshape(SHAPE) > 39)
    assert 0.15 < lesions.sum() / brain.white_matter.sum() < 0.25
    volume = np.where(lesions, 1500, plain) * np.exp(log) * rng.normal(1, 0.03, SHAPE)
    found = brain.receive_field(volume.astype(np.float32))
    assert found is not None
    matter = brain.grey_matter | brain.white_matter
    error = (found.at(places).reshape(SHAPE) - log)[matter]
    assert np.std(error) < 0.01


def test_a_brain_of_a_part_lies_in_the_whole(brain: Brain) -> None:
    shape = (40, 30, 26)
    part = (slice(5, 35), slice(6, 26), slice(2, 18))
    whole = brain.in_whole(part, shape)
    for mask, other in zip((whole.mask, whole.csf), (brain.mask, brain.csf), strict=True):
        assert mask.shape == shape
        assert mask.sum() == other.sum()
        np.testing.assert_array_equal(mask[part], other)
