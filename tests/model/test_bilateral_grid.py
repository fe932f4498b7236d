"""Splat and slice lose nothing, keep the order of intensities, and do not depend on how they are computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bids_harmonize.imaging.foreground import Box
from bids_harmonize.model import bilateral_grid
from bids_harmonize.model.bilateral_grid import (
    KNOT_STEP,
    KNOTS,
    MAX_INTENSITY,
    Cells,
    curves_from_slopes,
    slice_points,
    slice_volume,
    splat,
)
from tests.helpers.curves import identity_curves

sizes = st.tuples(*[st.integers(1, 14)] * 3)
zooms = st.tuples(*[st.floats(0.5, 12)] * 3)
seeds = st.integers(0, 2**31)
few = settings(max_examples=20)


def random_volume(shape: tuple[int, ...], seed: int) -> Tensor:
    """Air, tissue, knots exactly, and values far beyond the last knot."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, KNOT_STEP, MAX_INTENSITY, 40.0, 1e6], shape)
    tissue = rng.random(shape) < 0.7
    return torch.from_numpy(np.where(tissue, rng.uniform(0, 2, shape), values).astype(np.float32))


def random_curves(counts: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.exp(torch.randn(KNOTS - 1, *counts, generator=generator))
    return curves_from_slopes(slopes)


def voxel_positions(cells: Cells) -> Tensor:
    axes = [cells.position(axis) for axis in range(3)]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")])


@given(sizes, zooms)
def test_cells_cover_the_volume_evenly(shape: tuple[int, int, int], zoom: tuple[float, float, float]) -> None:
    cells = Cells.of(shape, zoom)
    for axis in range(3):
        members = torch.bincount(cells.index(axis), minlength=cells.counts[axis])
        assert members.shape == (cells.counts[axis],)
        assert members.min() >= 1
        assert members.max() - members.min() <= 1
        position = cells.position(axis)
        assert 0 <= position.min() <= position.max() <= cells.counts[axis] - 1
        assert bool((position.diff() >= 0).all())


def test_cells_measure_about_eight_millimetres() -> None:
    assert Cells.of((256, 256, 192), (1.0, 1.0, 1.0)).counts == (32, 32, 24)
    assert Cells.of((24, 448, 448), (6.0, 0.5, 0.5)).counts == (18, 28, 28)
    assert Cells.of((1, 64, 64), (5.0, 4.0, 20.0)).counts == (1, 32, 64)


@given(sizes, zooms)
def test_positions_mirror_with_the_axis(
    shape: tuple[int, int, int], zoom: tuple[float, float, float]
) -> None:
    cells = Cells.of(shape, zoom)
    for axis in range(3):
        position = cells.position(axis)
        np.testing.assert_allclose(position, cells.counts[axis] - 1 - position.flip(0), atol=1e-5)


# --- Splat ------------------------------------------------------------------------------------------------


@few
@given(sizes, zooms, seeds)
def test_counts_sum_to_the_number_of_voxels(
    shape: tuple[int, int, int], zoom: tuple[float, float, float], seed: int
) -> None:
    cells = Cells.of(shape, zoom)
    counts = splat(random_volume(shape, seed), cells)
    assert counts.shape == (KNOTS, *cells.counts)
    assert counts.min() >= 0
    assert float(counts.sum()) == np.prod(shape)
    members = [torch.bincount(cells.index(axis)).double() for axis in range(3)]
    torch.testing.assert_close(counts.sum(0), torch.einsum("i,j,k->ijk", *members), rtol=0, atol=0)


@given(seeds)
def test_order_of_voxels_within_a_cell_does_not_matter(seed: int) -> None:
    cells = Cells((6, 6, 6), (2, 1, 3), Box.whole((6, 6, 6)))
    volume = random_volume(cells.shape, seed)
    rng = np.random.default_rng(seed)
    shuffled = volume.clone()
    for x, z in np.ndindex(2, 3):
        block = np.s_[3 * x : 3 * x + 3, :, 2 * z : 2 * z + 2]
        values = volume[block].flatten().numpy()
        shuffled[block] = torch.from_numpy(rng.permutation(values)).view(3, 6, 2)
    assert torch.equal(splat(volume, cells), splat(shuffled, cells))


def test_intensities_are_shared_between_the_knots_around_them() -> None:
    volume = torch.tensor([0.0, KNOT_STEP, 2.25 * KNOT_STEP, MAX_INTENSITY, 100.0]).view(5, 1, 1)
    counts = splat(volume, Cells((5, 1, 1), (1, 1, 1), Box.whole((5, 1, 1)))).flatten()
    expected = torch.zeros(KNOTS, dtype=torch.float64)
    expected[[0, 1, 2, 3, KNOTS - 1]] = torch.tensor([1, 1, 0.75, 0.25, 2], dtype=torch.float64)
    assert torch.equal(counts, expected)


def test_number_of_threads_changes_no_bit() -> None:
    cells = Cells.of((40, 50, 30), (2.0, 2.0, 2.0))
    volume, curves = random_volume(cells.shape, 0), random_curves(cells.counts, 0)
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append((splat(volume, cells), slice_volume(curves, cells, volume)))
    finally:
        torch.set_num_threads(threads)
    for counts, sliced in results[1:]:
        assert torch.equal(counts, results[0][0])
        assert torch.equal(sliced, results[0][1])


# --- Slice ------------------------------------------------------------------------------------------------


@few
@given(sizes, zooms, seeds)
def test_identity_curves_change_nothing(
    shape: tuple[int, int, int], zoom: tuple[float, float, float], seed: int
) -> None:
    cells = Cells.of(shape, zoom)
    volume = random_volume(shape, seed)
    result = slice_volume(identity_curves(cells), cells, volume)
    torch.testing.assert_close(result, volume, rtol=5e-6, atol=1e-6)


@few
@given(sizes, zooms, seeds)
def test_volume_and_points_are_sliced_alike(
    shape: tuple[int, int, int], zoom: tuple[float, float, float], seed: int
) -> None:
    cells = Cells.of(shape, zoom)
    volume, curves = random_volume(shape, seed), random_curves(cells.counts, seed)
    points = slice_points(curves, voxel_positions(cells), volume.flatten()).view(shape)
    torch.testing.assert_close(slice_volume(curves, cells, volume), points, rtol=1e-5, atol=1e-5)


def test_slicing_is_linear_in_intensity_and_trilinear_in_space() -> None:
    curves = torch.zeros(KNOTS, 2, 1, 1)
    curves[1:, 0], curves[1:, 1] = 1.0, 3.0
    positions = torch.tensor([[0.0, 1.0, 0.25, 0.5], [0.0] * 4, [0.0] * 4])
    values = torch.tensor([KNOT_STEP, KNOT_STEP, KNOT_STEP, KNOT_STEP / 2])
    expected = torch.tensor([1.0, 3.0, 1.5, 1.0])
    torch.testing.assert_close(slice_points(curves, positions, values), expected)


def test_last_segment_goes_on_beyond_the_last_knot() -> None:
    cells = Cells((2, 1, 1), (1, 1, 1), Box.whole((2, 1, 1)))
    slopes = torch.ones(KNOTS - 1, 1, 1, 1)
    slopes[-1] = 0.5
    curves = curves_from_slopes(slopes)
    volume = torch.tensor([MAX_INTENSITY + 2, 1e6]).view(2, 1, 1)
    expected = curves[-1, 0, 0, 0] + 0.5 * (volume - MAX_INTENSITY)
    torch.testing.assert_close(slice_volume(curves, cells, volume), expected)


@few
@given(sizes, zooms, seeds)
def test_background_stays_zero_and_nothing_turns_negative(
    shape: tuple[int, int, int], zoom: tuple[float, float, float], seed: int
) -> None:
    cells = Cells.of(shape, zoom)
    volume = random_volume(shape, seed)
    result = slice_volume(random_curves(cells.counts, seed), cells, volume)
    assert bool((result[volume == 0] == 0).all())
    assert bool((result[volume > 1e-5] > 0).all())
    assert bool(result.isfinite().all())


@few
@given(sizes, zooms, seeds)
def test_a_brighter_voxel_stays_brighter_at_its_place(
    shape: tuple[int, int, int], zoom: tuple[float, float, float], seed: int
) -> None:
    cells = Cells.of(shape, zoom)
    curves = random_curves(cells.counts, seed)
    darker = random_volume(shape, seed)
    brighter = darker + 0.01 + darker * 0.01
    assert bool((slice_volume(curves, cells, darker) < slice_volume(curves, cells, brighter)).all())


@few
@given(sizes, zooms, seeds)
def test_one_curve_for_all_cells_keeps_the_order_everywhere(
    shape: tuple[int, int, int], zoom: tuple[float, float, float], seed: int
) -> None:
    cells = Cells.of(shape, zoom)
    curves = random_curves((1, 1, 1), seed).expand(KNOTS, *cells.counts).contiguous()
    volume = random_volume(shape, seed)
    result = slice_volume(curves, cells, volume).flatten()[volume.flatten().argsort()]
    assert bool((result.diff() >= -1e-5 * result[1:].abs() - 1e-6).all())


@given(seeds, st.sampled_from([1, 60, 200, 999]))
@settings(max_examples=20)
def test_size_of_the_chunks_changes_no_voxel(seed: int, voxels: int) -> None:
    cells = Cells.of((11, 9, 7), (3.0, 4.0, 5.0))
    volume, curves = random_volume(cells.shape, seed), random_curves(cells.counts, seed)
    whole = slice_volume(curves, cells, volume)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bilateral_grid, "CHUNK_VOXELS", voxels)
        assert torch.equal(slice_volume(curves, cells, volume), whole)


def test_largest_float_stays_finite() -> None:
    cells = Cells((2, 2, 2), (1, 1, 1), Box.whole((2, 2, 2)))
    volume = torch.ones(cells.shape)
    # Some programs pad with the largest float.
    volume[0, 0, 0] = torch.finfo(torch.float32).max
    result = slice_volume(1000 * identity_curves(cells), cells, volume)
    assert bool(result.isfinite().all())
    assert result.argmax() == 0


def test_gradient_of_slicing_is_that_of_its_finite_differences() -> None:
    curves = random_curves((1, 2, 1), 0).double().requires_grad_()
    positions = torch.tensor([[0.0] * 5, [0.0, 0.2, 0.5, 0.7, 1.0], [0.0] * 5], dtype=torch.float64)
    values = torch.tensor([0.0, 0.3, 0.77, MAX_INTENSITY, 2.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: slice_points(c, positions, values), (curves,))


def test_curves_rise_from_zero_by_their_slopes() -> None:
    slopes = torch.rand(2, KNOTS - 1, 2, 3, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    curves = curves_from_slopes(slopes)
    assert curves.shape == (2, KNOTS, 2, 3, 4)
    assert bool((curves[:, 0] == 0).all())
    torch.testing.assert_close(curves.diff(dim=1), slopes * KNOT_STEP, rtol=1e-4, atol=1e-6)
