"""The box of the foreground, and its bright value: the same whatever surrounds the head."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bids_harmonize.imaging.foreground import BRIGHT_SHARE, MARGIN_MM, Box, Foreground
from bids_harmonize.imaging.intensity import intensity_scale
from tests.helpers.toy_heads import HEAD_GRID

# A block of 40 x 48 x 56 mm, as bright everywhere, with 12 mm of air before it along every axis.
ZOOMS = (2.0, 4.0, 1.0)
BLOCK = (slice(6, 26), slice(3, 15), slice(12, 68))
SHAPE = (40, 20, 80)
MARGINS = st.tuples(*[st.tuples(st.integers(0, 9), st.integers(0, 9))] * 3)


def block(level: float = 500.0) -> NDArray[np.float32]:
    volume = np.zeros(SHAPE, dtype=np.float32)
    volume[BLOCK] = level
    return volume


def padded(
    volume: NDArray[np.float32], margins: tuple[tuple[int, int], ...], noise: float, seed: int = 0
) -> NDArray[np.float32]:
    """The volume with air around it: zeros, or noise of this standard deviation in either channel."""
    rng = np.random.default_rng(seed)
    shape = [n + low + high for n, (low, high) in zip(volume.shape, margins, strict=True)]
    air = np.hypot(*rng.normal(0, noise, (2, *shape))).astype(np.float32)
    inside = tuple(slice(low, low + n) for n, (low, _) in zip(volume.shape, margins, strict=True))
    air[inside] = volume
    return air


def test_box_and_bright_value_by_hand() -> None:
    found = Foreground.of(block(), ZOOMS)
    assert found.box == Box((2, 1, 4), (30, 17, 76))
    assert found.scale == 500
    assert MARGIN_MM == 8


def test_the_box_may_leave_the_volume() -> None:
    found = Foreground.of(block()[6:26, 3:15, 12:68], ZOOMS)
    assert found.box == Box((-4, -2, -8), (24, 14, 64))


@pytest.mark.parametrize("side", [9, 19])
def test_what_covers_less_than_200_mm2_of_a_plane_is_no_foreground(side: int) -> None:
    volume = np.zeros((60, 60, 60), dtype=np.float32)
    volume[20:40, 20:40, 20:40] = 100
    volume[20 : 20 + side, 20 : 20 + side, 50:54] = 100
    assert Foreground.of(volume, (1, 1, 1)).box.stop[2] == (62 if side > 14 else 48)


def test_a_volume_without_such_a_plane_is_its_own_box() -> None:
    assert Foreground.of(np.ones((5, 6, 7), np.float32), (1, 1, 1)).box == Box.whole((5, 6, 7))


@settings(max_examples=25)
@given(MARGINS, st.sampled_from([0.0, 0.01, 0.03]), st.integers(0, 99))
def test_air_around_a_head_changes_neither(
    head_volume: NDArray[np.float32], margins: tuple[tuple[int, int], ...], noise: float, seed: int
) -> None:
    plain = Foreground.of(head_volume, HEAD_GRID.zooms)
    wide = Foreground.of(padded(head_volume, margins, noise * plain.scale, seed), HEAD_GRID.zooms)
    start = [low + margin for low, (margin, _) in zip(plain.box.start, margins, strict=True)]
    assert wide.box.start == tuple(start)
    assert wide.box.shape == plain.box.shape
    assert wide.scale == pytest.approx(plain.scale, rel=0.002)


def test_noise_in_a_wide_field_of_view_is_no_foreground() -> None:
    # Two percent of the noise exceed the threshold, which is more than 200 mm² of a plane.
    wide = padded(block(), ((15, 15), (10, 10), (40, 40)), 0.035 * 500)
    bright = wide[:15] > BRIGHT_SHARE * 500
    assert bright.sum(axis=(1, 2)).min() * ZOOMS[1] * ZOOMS[2] > 200
    found = Foreground.of(wide, ZOOMS)
    assert found.box == Box((17, 11, 44), (45, 27, 116))


@given(MARGINS, st.tuples(*[st.integers(1, 4)] * 3))
def test_every_few_voxels_are_the_same_wherever_the_box_lies(
    margins: tuple[tuple[int, int], ...], steps: tuple[int, int, int]
) -> None:
    volume = np.random.default_rng(0).random((12, 13, 14)).astype(np.float32)
    box = Box((-3, 0, 2), (15, 9, 14))
    shifts = [before for before, _ in margins]
    moved = Box(
        tuple(low + shift for low, shift in zip(box.start, shifts, strict=True)),
        tuple(high + shift for high, shift in zip(box.stop, shifts, strict=True)),
    )
    plain = volume[box.within(volume.shape, steps)]
    wide = padded(volume, margins, 0.0)
    sampled = wide[moved.within(wide.shape, steps)]
    np.testing.assert_array_equal(np.sort(sampled[sampled > 0]), np.sort(plain[plain > 0]))


def test_a_box_is_enlarged_on_both_sides() -> None:
    assert Box((2, 3, 4), (5, 6, 8)).enlarged((5, 4, 4)) == Box((1, 3, 4), (6, 7, 8))


def test_the_bright_value_is_that_of_the_whole_volume_where_this_is_the_box(
    head_volume: NDArray[np.float32],
) -> None:
    assert Foreground.of(head_volume, HEAD_GRID.zooms).scale == pytest.approx(
        intensity_scale(head_volume), rel=0.01
    )
