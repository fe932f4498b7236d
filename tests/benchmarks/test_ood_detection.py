"""Scans as they are also stored: the same head, in other voxels, air or noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.ood_detection import CLIP_PERCENTILE, PADDING_MM, SMALL_HEAD, STORED, Count, half, markdown

pytestmark = pytest.mark.benchmark

ZOOMS = (2.0, 2.5, 1.5)


@pytest.fixture
def volume() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    volume = np.zeros((30, 28, 40), dtype=np.float32)
    volume[6:24, 5:22, 8:33] = rng.uniform(300, 900, (18, 17, 25))
    return volume


def extent(volume: NDArray[np.float32], zooms: tuple[float, float, float]) -> list[float]:
    return [n * zoom for n, zoom in zip(volume.shape, zooms, strict=True)]


@pytest.mark.parametrize("kind", STORED)
def test_voxels_are_finite_magnitudes(volume: NDArray[np.float32], kind: str) -> None:
    stored, zooms = STORED[kind](volume.copy(), ZOOMS)
    assert stored.ndim == len(zooms) == 3
    assert np.all(np.isfinite(stored)) and stored.min() >= 0
    assert not (stored.shape == volume.shape and zooms == ZOOMS and np.array_equal(stored, volume))


def test_what_each_kind_changes(volume: NDArray[np.float32]) -> None:
    stored = {kind: store(volume, ZOOMS) for kind, store in STORED.items()}
    assert stored["saturated"][0].max() == pytest.approx(np.percentile(volume, CLIP_PERCENTILE))
    grown = np.subtract(extent(*stored["large field of view"]), extent(volume, ZOOMS))
    assert grown == pytest.approx(2 * PADDING_MM, abs=max(ZOOMS))
    assert stored["large field of view"][0].sum() == pytest.approx(volume.sum())
    assert stored["tight field of view"][0].shape == (18, 17, 25)
    thick, zooms = stored["thick slices"]
    assert zooms[2] > 2 * ZOOMS[2] and thick.shape[:2] == volume.shape[:2]
    assert extent(*stored["small head"]) == pytest.approx(np.multiply(extent(volume, ZOOMS), SMALL_HEAD))
    noise = stored["noisy"][0][volume == 0]
    assert 0 < noise.mean() < 0.1 * volume.max()


def test_every_participant_is_in_one_half() -> None:
    names = [f"sub-{n}" for n in (3, 1, 5, 4)]
    halves = half(names, development=True), half(names, development=False)
    assert halves[0] | halves[1] == set(names)
    assert not halves[0] & halves[1]


def test_the_table_adds_up_real_scans_apart() -> None:
    known = {"model": "T1w", "kind": "as it is", "foreign": False}
    table = markdown(
        [
            Count(origin="sites", scans=3, flagged=0, **known),
            Count(origin="simulated", scans=5, flagged=1, **known),
        ]
    )
    assert "| T1w | **all familiar** |  | 8 | 1 | 12% |" in table
    assert "| T1w | **all familiar** | real | 3 | 0 | 0% |" in table
