"""The network predicts rising curves from zero, on grids of every size, the same each time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bids_harmonize.imaging.foreground import Box
from bids_harmonize.model.bilateral_grid import KNOT_STEP, KNOTS, Cells
from bids_harmonize.model.network import (
    AIR_KNOTS,
    EDIT_ERROR,
    ChannelNorm,
    CurveNetwork,
    cell_features,
    global_features,
    restrained,
    spread_from,
)
from tests.helpers.curves import identity_curves

counts = st.tuples(*[st.integers(1, 7)] * 3)
seeds = st.integers(0, 2**31)


def random_histogram(shape: tuple[int, ...], seed: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 100 * torch.rand(batch, KNOTS, *shape, generator=generator, dtype=torch.float64) ** 4


def random_network(seed: int, spread: float = 0.3) -> CurveNetwork:
    torch.manual_seed(seed)
    network = CurveNetwork(widths=(4, 8, 8), context=8)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, spread)
    return network


@given(counts, seeds)
@settings(max_examples=12)
def test_untrained_network_changes_nothing(shape: tuple[int, int, int], seed: int) -> None:
    torch.manual_seed(seed)
    curves = CurveNetwork(widths=(4, 8, 8), context=8)(random_histogram(shape, seed))
    torch.testing.assert_close(
        curves[0], identity_curves(Cells(shape, shape, Box.whole(shape))), rtol=1e-5, atol=1e-6
    )


def test_untrained_network_of_full_size_changes_nothing() -> None:
    with torch.no_grad():
        curves = CurveNetwork()(random_histogram((5, 6, 7), 0))
    torch.testing.assert_close(
        curves[0], identity_curves(Cells((5, 6, 7), (5, 6, 7), Box.whole((5, 6, 7)))), rtol=1e-5, atol=1e-6
    )


@given(counts, seeds)
@settings(max_examples=12)
def test_curves_start_at_zero_and_rise(shape: tuple[int, int, int], seed: int) -> None:
    with torch.no_grad():
        curves = random_network(seed)(random_histogram(shape, seed))
    assert curves.shape == (1, KNOTS, *shape)
    assert curves.dtype == torch.float32
    assert bool(curves.isfinite().all())
    assert bool((curves[:, 0] == 0).all())
    assert bool((curves.diff(dim=1) > 0).all())


def edit_size(curves: Tensor, histogram: Tensor) -> float:
    """Root mean square of the logarithm of gains, less its mean, over the tissue."""
    knots = torch.arange(KNOTS).view(1, -1, 1, 1, 1) * KNOT_STEP
    gains = (curves / knots)[:, AIR_KNOTS:].log()
    weight = histogram[:, AIR_KNOTS:] / histogram[:, AIR_KNOTS:].sum()
    return float((weight * (gains - (weight * gains).sum()).square()).sum().sqrt())


@given(counts, seeds, st.floats(0.3, 3), st.sampled_from([0.02, 0.1, 0.4, 2.0]))
@settings(max_examples=20)
def test_small_edits_vanish_and_large_ones_stay(
    shape: tuple[int, int, int], seed: int, unit: float, error: float
) -> None:
    histogram = random_histogram(shape, seed)
    with torch.no_grad():
        curves = random_network(seed, 0.1).train()(histogram) * unit
    kept = restrained(curves, histogram, error)
    before, after = edit_size(curves, histogram), edit_size(kept, histogram)
    assert after == pytest.approx(before**9 / (before**8 + error**8), rel=1e-3, abs=1e-5)
    assert bool((kept.diff(dim=1) > 0).all())
    torch.testing.assert_close(restrained(curves, histogram, 0), curves)


def test_the_unit_of_the_output_is_kept_as_predicted() -> None:
    knots = torch.arange(KNOTS) * KNOT_STEP
    white, grey = round(0.8 / KNOT_STEP), round(0.5 / KNOT_STEP)
    histogram = torch.zeros(1, KNOTS, 2, 2, 2)
    histogram[:, white], histogram[:, grey] = 100.0, 100.0
    # White matter becomes 1; grey matter is made a little darker against it.
    curve = knots / knots[white] * torch.where(torch.arange(KNOTS) < white, 0.95, 1.0)
    curves = curve.view(1, -1, 1, 1, 1).expand(histogram.shape)
    kept = restrained(curves, histogram, EDIT_ERROR)[0, :, 0, 0, 0]
    assert float(kept[white]) == pytest.approx(1, abs=0.01)
    assert float(kept[grey] / kept[white]) == pytest.approx(float(knots[grey] / knots[white]), rel=0.005)


@given(st.floats(0.01, 100))
def test_a_gain_is_no_edit(gain: float) -> None:
    histogram = random_histogram((2, 3, 2), 5)
    knots = torch.arange(KNOTS) * KNOT_STEP
    curves = (gain * knots).view(1, -1, 1, 1, 1).expand(histogram.shape)
    torch.testing.assert_close(restrained(curves, histogram, EDIT_ERROR), curves, rtol=1e-4, atol=1e-7)


def test_edits_are_restrained_where_they_are_used_and_not_where_they_are_learned() -> None:
    network, histogram = random_network(3), random_histogram((4, 5, 3), 3)
    with torch.no_grad():
        learned, used = network.train()(histogram), network.eval()(histogram)
    torch.testing.assert_close(used, restrained(learned, histogram, EDIT_ERROR))
    assert not torch.allclose(used, learned, rtol=1e-3)


@given(counts, seeds)
@settings(max_examples=15)
def test_scans_of_a_batch_do_not_see_each_other(shape: tuple[int, int, int], seed: int) -> None:
    network = random_network(seed)
    histogram = random_histogram(shape, seed, batch=3)
    with torch.no_grad():
        together = network(histogram)
        alone = torch.cat([network(single[None]) for single in histogram])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_empty_cells_are_no_obstacle() -> None:
    with torch.no_grad():
        curves = random_network(0)(torch.zeros(1, KNOTS, 3, 4, 5, dtype=torch.float64))
    assert bool(curves.isfinite().all())


def test_same_input_same_bits() -> None:
    network, histogram = random_network(1), random_histogram((6, 5, 7), 1)
    with torch.no_grad():
        assert torch.equal(network(histogram), network(histogram.clone()))


def test_curves_depend_on_the_place() -> None:
    with torch.no_grad():
        curves = random_network(2)(random_histogram((4, 4, 4), 2))
    assert float(curves[0, -1].std()) > 1e-3


def test_every_parameter_but_unused_ones_learns() -> None:
    network = random_network(3)
    network(random_histogram((4, 4, 4), 3)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@given(counts, st.integers(1, 1000), seeds)
@settings(max_examples=12)
def test_features_do_not_depend_on_the_number_of_voxels(
    shape: tuple[int, int, int], factor: int, seed: int
) -> None:
    histogram = random_histogram(shape, seed) + 1
    for features in (cell_features, global_features):
        torch.testing.assert_close(features(histogram), features(factor * histogram), rtol=1e-5, atol=1e-6)


@given(counts, seeds)
@settings(max_examples=12)
def test_global_features_do_not_see_air(shape: tuple[int, int, int], seed: int) -> None:
    histogram = random_histogram(shape, seed)
    more = torch.nn.functional.pad(histogram, (1, 2, 3, 0, 0, 4))
    more[:, :AIR_KNOTS] += 1000
    torch.testing.assert_close(global_features(histogram), global_features(more))
    assert global_features(histogram).shape == (1, 2 * KNOTS)
    torch.testing.assert_close(global_features(histogram)[:, -1], torch.ones(1))


def test_norm_of_a_cell_does_not_depend_on_its_neighbours() -> None:
    norm = ChannelNorm(4)
    x = torch.randn(1, 4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, :, 0] *= 50
    torch.testing.assert_close(norm(x)[:, :, 1:], norm(changed)[:, :, 1:], rtol=0, atol=0)
    torch.testing.assert_close(norm(x).square().mean(1), torch.ones(1, 3, 3, 3), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8, 10)])
def test_depth_is_free(widths: tuple[int, ...]) -> None:
    network = CurveNetwork(widths=widths, context=8)
    assert network(random_histogram((5, 3, 9), 0)).shape == (1, KNOTS, 5, 3, 9)
    assert network.config == {
        "widths": list(widths),
        "context": 8,
        "whole_volume": False,
        "edit_error": EDIT_ERROR,
    }


def test_noise_in_the_air_is_not_seen() -> None:
    torch.manual_seed(0)
    network = random_network(3)
    counts = random_histogram((4, 5, 6), 0)
    moved = counts.clone()
    moved[:, 0] += moved[:, 1] + moved[:, 2]
    moved[:, 1:3] = 0
    with torch.no_grad():
        assert torch.equal(network(counts), network(moved))


def test_cells_without_tissue_carry_the_curve_of_their_neighbours() -> None:
    values = torch.zeros(1, 1, 8, 8, 8)
    trust = torch.zeros(1, 1, 8, 8, 8)
    values[..., :4, :, :], values[..., 4:, :, :] = 1.0, 3.0
    trust[..., 1:7, 3:5, 3:5] = 1
    filled = spread_from(values.where(trust > 0, torch.tensor(99.0)), trust)
    assert torch.equal(filled[trust > 0], values[trust > 0])
    assert 1 <= float(filled.min()) <= float(filled.max()) <= 3
    assert float(filled[0, 0, 0, 4, 4]) < 2 < float(filled[0, 0, 7, 4, 4])


def test_where_nothing_is_tissue_the_mean_is_taken() -> None:
    values = torch.arange(8.0).view(1, 1, 2, 2, 2)
    filled = spread_from(values, torch.zeros(1, 1, 2, 2, 2))
    torch.testing.assert_close(filled, torch.full((1, 1, 2, 2, 2), 3.5))
