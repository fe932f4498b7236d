"""Pairs for training: reproducible, on one grid, and now and then unaltered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.image import intensity_scale
from bids_harmonize.pairs import UNALTERED, Example, alter, draw_pair, examples
from bids_harmonize.reference import ReferenceScan

few = settings(max_examples=20)


@pytest.fixture(scope="module")
def group(small_group: list[ReferenceScan]) -> list[Example]:
    return [example for scan in small_group for example in examples(scan)]


def test_examples_are_in_units_of_white_matter(small_group: list[ReferenceScan]) -> None:
    for example in examples(small_group[0]):
        assert example.volume.dtype == np.float32
        assert example.volume.shape == example.brain.shape == example.inside.shape
        assert np.quantile(example.volume[example.brain], 0.1) == pytest.approx(600 / 900, abs=0.05)
        assert 0 <= example.inside.min() <= example.inside.max() <= 1 + 1e-6


@pytest.mark.parametrize("zooms", [(1.0, 1.0, 1.0), (0.8, 0.8, 5.0), (2.0, 2.0, 2.0), (4.0, 0.5, 0.5)])
def test_examples_keep_the_field_of_view(zooms: tuple[float, float, float]) -> None:
    shape = tuple(round(48 / zoom) for zoom in zooms)
    volume = np.random.default_rng(0).uniform(100, 900, shape).astype(np.float32)
    scan = ReferenceScan(
        name="a", volume=volume, zooms=zooms, brain=np.ones(shape, dtype=bool), white_matter=500.0
    )
    averaged, every = examples(scan)
    for example in (averaged, every):
        extent = np.multiply(example.volume.shape, example.zooms)
        original = np.multiply(shape, zooms)
        assert np.all(np.abs(extent - original) <= np.maximum(example.zooms, 2.0) + 1e-9)
        assert np.all(np.asarray(example.zooms) >= np.minimum(zooms, 1.8))
    # Averaging keeps the mean and takes noise away; picking keeps values as they were measured.
    assert averaged.volume.mean() == pytest.approx(1, abs=0.03)
    assert np.isin(every.volume, volume / np.float32(500)).all()


@few
@given(st.integers(0, 2**31))
def test_same_random_numbers_same_pair(group: list[Example], seed: int) -> None:
    first, second = (draw_pair(group, np.random.default_rng(seed)) for _ in range(2))
    for name in ("altered", "original", "brain"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.zooms == second.zooms


@few
@given(st.integers(0, 2**31))
def test_a_pair_is_fit_for_training(group: list[Example], seed: int) -> None:
    pair = draw_pair(group, np.random.default_rng(seed))
    assert pair.altered.dtype == pair.original.dtype == np.float32
    assert pair.altered.shape == pair.original.shape == pair.brain.shape
    assert pair.brain.dtype == np.bool_
    for volume in (pair.altered, pair.original):
        assert volume.flags.c_contiguous
        assert np.all(np.isfinite(volume))
        assert volume.min() >= 0
    # Jitter of the scale has a standard deviation of 10 %.
    assert 0.5 < intensity_scale(pair.altered) < 2
    assert pair.brain.sum() > 0.5 * max(example.brain.sum() for example in group) / 2


@few
@given(st.integers(0, 2**31), st.sampled_from([0.3, 1.0]))
def test_altering_leaves_the_original_alone(group: list[Example], seed: int, strength: float) -> None:
    example = group[0]
    volume, inside = example.volume.copy(), example.inside.copy()
    altered = alter(example, group[2], np.random.default_rng(seed), strength)
    assert altered.shape == volume.shape
    assert altered.dtype == np.float32
    assert not np.shares_memory(altered, example.volume)
    np.testing.assert_array_equal(example.volume, volume)
    np.testing.assert_array_equal(example.inside, inside)


def test_drawing_leaves_the_group_alone(group: list[Example]) -> None:
    before = [example.volume.copy() for example in group]
    rng = np.random.default_rng(0)
    for _ in range(20):
        draw_pair(group, rng)
    for example, volume in zip(group, before, strict=True):
        np.testing.assert_array_equal(example.volume, volume)


def test_some_pairs_differ_by_a_factor_only(group: list[Example]) -> None:
    rng = np.random.default_rng(0)
    pairs = [draw_pair(group, rng) for _ in range(200)]
    unaltered = 0
    for pair in pairs:
        bright = pair.original > 0.3
        ratio = pair.altered[bright] / pair.original[bright]
        unaltered += bool(np.ptp(ratio) < 1e-4 * ratio.mean())
    # Four standard deviations of the binomial distribution around its mean.
    assert unaltered / len(pairs) == pytest.approx(UNALTERED, abs=4 * np.sqrt(UNALTERED / len(pairs)))


def test_skull_stripped_pairs_are_zero_in_both(group: list[Example]) -> None:
    rng = np.random.default_rng(1)
    pairs = [draw_pair(group, rng) for _ in range(100)]
    stripped = [pair for pair in pairs if np.mean(pair.original == 0) > 0.5]
    assert 0.05 < len(stripped) / len(pairs) < 0.36
    for pair in stripped:
        np.testing.assert_array_equal(pair.original[pair.altered == 0], 0)
        outside = np.flatnonzero(~pair.brain & (pair.original > 1.1))
        # Scalp is gone: a mask two voxels too wide does not reach it on most of the surface.
        assert outside.size < 0.25 * pair.brain.size


def test_halves_of_the_pairs_are_mirrored_and_windows_vary(group: list[Example]) -> None:
    rng = np.random.default_rng(2)
    shapes = {draw_pair(group[:1], rng).altered.shape for _ in range(60)}
    assert group[0].volume.shape in shapes or len(shapes) > 5
    full = group[0].volume.shape
    assert all(0.7 * n <= m <= n for shape in shapes for n, m in zip(full, shape, strict=True))
