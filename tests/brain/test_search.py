"""The brain of a head is found in any contrast, orientation and surroundings, or none is."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bids_harmonize.brain.search import find_brain
from bids_harmonize.imaging.brain import Brain, NoBrain
from bids_harmonize.imaging.orientation import from_ras
from bids_harmonize.imaging.types import Mask
from bids_harmonize.phantom.anatomy import PHANTOM_LABELS, Head
from bids_harmonize.phantom.scanner import Receiver, render
from tests.helpers.toy_heads import HEAD_GRID, T2_SPIN_ECHO

ZOOMS = HEAD_GRID.zooms
AFFINE = np.diag([*ZOOMS, 1.0])
BRAIN_NAMES = ("white matter", "grey matter", "deep grey matter", "csf")


@pytest.fixture(scope="module")
def brain_of_phantom(head: Head) -> Mask:
    return np.isin(head.labels_on(HEAD_GRID), [PHANTOM_LABELS.index(name) for name in BRAIN_NAMES])


@pytest.fixture(scope="module")
def t2w(head: Head) -> NDArray[np.float32]:
    return render(head, T2_SPIN_ECHO, HEAD_GRID, Receiver(gain=700, snr=40, shading=0.1), seed=(2,))


def found(volume: NDArray[np.float32], affine: NDArray[np.float64] = AFFINE) -> Brain:
    brain = find_brain(volume, ZOOMS, affine)
    assert isinstance(brain, Brain), brain
    return brain


def dice(first: Mask, second: Mask) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def test_brains_of_both_contrasts_and_the_order_of_their_tissues(
    head_volume: NDArray[np.float32], t2w: NDArray[np.float32], brain_of_phantom: Mask
) -> None:
    bright, dark = found(head_volume), found(t2w)
    assert min(dice(brain.mask, brain_of_phantom) for brain in (bright, dark)) > 0.9
    levels = bright.levels(head_volume)
    assert levels.csf < levels.grey_matter < levels.white_matter
    levels = dark.levels(t2w)
    assert levels.white_matter < levels.grey_matter < levels.csf


@pytest.mark.parametrize(("name", "factor"), [("fat", 2), ("csf", 2), ("fat", 0.3)])
def test_a_brain_outshone_by_fat_or_fluid(
    head: Head,
    head_volume: NDArray[np.float32],
    t2w: NDArray[np.float32],
    brain_of_phantom: Mask,
    name: str,
    factor: float,
) -> None:
    volume = (t2w if name == "csf" else head_volume).copy()
    volume[head.labels_on(HEAD_GRID) == PHANTOM_LABELS.index(name)] *= np.float32(factor)
    assert dice(found(volume).mask, brain_of_phantom) > 0.9


def test_a_brain_without_its_skull(t2w: NDArray[np.float32], brain_of_phantom: Mask) -> None:
    stripped = np.where(brain_of_phantom, t2w, np.float32(0))
    assert dice(found(stripped).mask, brain_of_phantom) > 0.9


@settings(max_examples=4)
@given(st.tuples(*[st.integers(0, 12)] * 3), st.tuples(*[st.integers(0, 12)] * 3))
def test_air_around_a_head_changes_nothing(
    t2w: NDArray[np.float32], before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    plain = found(t2w)
    padded = found(np.pad(t2w, list(zip(before, after, strict=True))))
    inside = tuple(slice(k, k + n) for k, n in zip(before, t2w.shape, strict=True))
    assert dice(padded.mask[inside], plain.mask) > 0.98
    assert padded.mask.sum() == padded.mask[inside].sum()


def test_the_way_an_image_lies_and_its_unit_change_nothing(t2w: NDArray[np.float32]) -> None:
    plain = found(t2w)
    turned = np.zeros((4, 4))
    turned[[0, 1, 2, 3], [2, 0, 1, 3]] = [-ZOOMS[0], ZOOMS[1], -ZOOMS[2], 1]
    other = found(np.ascontiguousarray(from_ras(t2w * np.float32(8), turned)), turned)
    np.testing.assert_array_equal(other.mask, from_ras(plain.mask, turned))


def test_the_number_of_threads_changes_nothing(t2w: NDArray[np.float32]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        several = found(t2w)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    one = found(t2w)
    np.testing.assert_array_equal(several.mask, one.mask)
    assert astuple(several.levels(t2w)) == astuple(one.levels(t2w))


def test_noise_a_ball_and_a_flat_brain_are_no_brains(brain_of_phantom: Mask) -> None:
    rng = np.random.default_rng(0)
    noise = rng.rayleigh(100, brain_of_phantom.shape).astype(np.float32)
    axes = [np.arange(n) - (n - 1) / 2 for n in brain_of_phantom.shape]
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")))
    ball = np.where(radius < 22, np.float32(800), np.float32(0)) + noise / 20
    flat = np.where(brain_of_phantom, np.float32(500), np.float32(0))
    for volume in (noise, ball, flat):
        assert isinstance(find_brain(volume, ZOOMS, AFFINE), NoBrain)


def test_small_things_are_not_searched() -> None:
    there_is_none = find_brain(np.ones((10, 10, 10), dtype=np.float32), (3.0, 3.0, 3.0), AFFINE)
    assert isinstance(there_is_none, NoBrain)
    assert "30 x 30 x 30 mm" in there_is_none.reason


@settings(max_examples=30)
@given(
    arrays(
        np.float32,
        st.tuples(*[st.integers(1, 9)] * 3),
        elements=st.sampled_from([0.0, 1.0, 1.0, 50.0, 100.0, 1e6]),
        fill=st.nothing(),
    ),
    st.tuples(*[st.sampled_from([1.0, 9.0, 30.0])] * 3),
)
def test_no_volume_is_too_odd(volume: NDArray[np.float32], zooms: tuple[float, float, float]) -> None:
    brain = find_brain(volume, zooms, AFFINE)
    if isinstance(brain, Brain):
        assert brain.mask.shape == volume.shape
        assert np.all(np.isfinite(astuple(brain.levels(volume))))
    else:
        assert brain.reason.startswith("no brain was found")
