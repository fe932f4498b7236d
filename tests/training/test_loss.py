"""The loss of training: order of neighbours, mean errors, the price of curves that differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.imaging.foreground import Box
from bids_harmonize.model.bilateral_grid import KNOTS, Cells, curves_from_slopes
from bids_harmonize.training.loss import MIN_EDGE, REMAINDER, bias, departure, reversal_loss, slice_at
from bids_harmonize.training.pairs import Pair
from tests.helpers.curves import identity_curves

# --- Order of neighbours ------------------------------------------------------------------------------------


def staircase() -> Pair:
    """Brighter by 0.03 from voxel to voxel along the first axis."""
    volume = np.broadcast_to(np.float32(0.4) + np.float32(0.03) * np.arange(16, dtype=np.float32), (4, 4, 16))
    volume = np.ascontiguousarray(volume.transpose(2, 0, 1))
    return Pair(
        augmented=volume,
        target=volume,
        region=np.ones(volume.shape, dtype=bool),
        zooms=(1.0, 1.0, 1.0),
        box=Box.whole(volume.shape),
    )


def reversal(curves: torch.Tensor, pair: Pair, seed: int) -> float:
    index = np.arange(pair.augmented.size)
    output = slice_at(curves, pair, index)
    return float(reversal_loss(curves, pair, index, output, np.random.default_rng(seed)))


def along_first_axis(seed: int) -> bool:
    return int(np.random.default_rng(seed).integers(3)) == 0


CELLS = Cells.of((16, 4, 4), (1.0, 1.0, 1.0))
SEEDS = range(12)


def test_curves_that_change_nothing_reverse_nothing() -> None:
    assert all(reversal(identity_curves(CELLS), staircase(), seed) == 0 for seed in SEEDS)


@settings(max_examples=20)
@given(st.lists(st.floats(1.1 * REMAINDER, 5), min_size=KNOTS - 1, max_size=KNOTS - 1), st.integers(0, 100))
def test_one_curve_that_is_steep_enough_everywhere_loses_no_order(slopes: list[float], seed: int) -> None:
    curves = curves_from_slopes(torch.tensor(slopes)[:, None, None, None].expand(-1, *CELLS.counts))
    # The loss is not exactly 0 because interpolation rounds.
    assert reversal(curves, staircase(), seed) < 1e-6


def test_curves_that_darken_along_an_edge_lose_the_order_of_neighbours() -> None:
    assert CELLS.counts == (2, 1, 1)
    pair = staircase()
    slopes = torch.ones(KNOTS - 1, *CELLS.counts)
    slopes[:, 1] = 0.1
    curves = curves_from_slopes(slopes)
    # Computed by hand, every voxel is multiplied by a gain that falls from 1 to 0.1 between the centres of
    # the two cells.
    gain = np.interp((np.arange(16) + 0.5) / 8 - 0.5, [0, 1], [1, 0.1])
    before, after = np.diff(pair.augmented[:, 0, 0]), np.diff(pair.augmented[:, 0, 0] * gain)
    expected = np.maximum(REMAINDER * before - after, 0).mean()
    assert expected > 0.01
    for seed in SEEDS:
        found = reversal(curves, pair, seed)
        assert found == pytest.approx(expected if along_first_axis(seed) else 0, rel=1e-4)
    assert any(along_first_axis(seed) for seed in SEEDS)


def test_steps_within_the_noise_may_be_reversed() -> None:
    pair = staircase()
    faint = replace(pair, augmented=pair.augmented * np.float32(0.5 * MIN_EDGE / 0.03))
    slopes = torch.ones(KNOTS - 1, *CELLS.counts)
    slopes[:, 1] = 0.1
    assert all(reversal(curves_from_slopes(slopes), faint, seed) == 0 for seed in SEEDS)


def test_reversal_is_learned_from() -> None:
    pair = staircase()
    slopes = torch.ones(KNOTS - 1, *CELLS.counts)
    slopes[:, 1] = 0.1
    slopes.requires_grad_()
    seed = next(seed for seed in SEEDS if along_first_axis(seed))
    index = np.arange(pair.augmented.size)
    curves = curves_from_slopes(slopes)
    output = slice_at(curves, pair, index)
    reversal_loss(curves, pair, index, output, np.random.default_rng(seed)).backward()
    assert slopes.grad is not None
    # Less contrast on the near side, more on the far side.
    assert slopes.grad[:, 0].sum() > 0 > slopes.grad[:, 1].sum()


# --- Mean errors --------------------------------------------------------------------------------------------


def test_errors_that_even_out_are_no_bias() -> None:
    target = torch.tensor([0.63, 0.63, 1.01, 1.01])
    output = target + torch.tensor([-0.2, 0.2, 0.1, -0.1])
    assert float(bias(output, target, torch.ones(4))) == pytest.approx(0, abs=1e-6)


def test_tissues_that_come_nearer_to_one_another_are_a_bias() -> None:
    # Over both tissues the errors even out, in each they do not.
    target = torch.tensor([0.63, 0.63, 1.01, 1.01])
    output = target + torch.tensor([0.1, 0.1, -0.1, -0.1])
    assert float(bias(output, target, torch.ones(4))) == pytest.approx(0.1, rel=1e-5)


def test_only_voxels_with_a_weight_are_biased() -> None:
    target, output = torch.tensor([0.63, 1.01]), torch.tensor([0.63, 2.0])
    assert float(bias(output, target, torch.tensor([1.0, 0.0]))) == 0
    assert float(bias(output, target, torch.zeros(2))) == 0


# --- The price of curves that differ from place to place ----------------------------------------------------


@given(st.integers(0, 99))
@settings(max_examples=10)
def test_one_curve_times_a_gain_per_cell_is_no_departure(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    curve = (torch.rand(KNOTS, generator=generator) + 0.1).cumsum(0)
    gain = torch.rand(3, 4, 5, generator=generator) + 0.5
    counts = torch.rand(KNOTS, 3, 4, 5, generator=generator) ** 4
    assert float(departure(curve[:, None, None, None] * gain, counts)) < 1e-3
    others = (torch.rand(KNOTS, 3, 4, 5, generator=generator) + 0.1).cumsum(0)
    assert float(departure(others, counts)) > 0.02


def test_departure_counts_intensities_as_often_as_they_occur() -> None:
    curves = torch.ones(KNOTS, 2, 1, 1)
    curves[20, 0] = torch.e
    counts = torch.zeros(KNOTS, 2, 1, 1)
    counts[10], counts[40] = 50, 50
    assert float(departure(curves, counts)) == 0
    counts[20] = 100
    # Half of the voxels have a logarithm of 1 in one of two cells: 1/4 is left over for each of them.
    assert float(departure(curves, counts)) == pytest.approx(0.25, abs=0.02)
