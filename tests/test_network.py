"""The network predicts rising curves from zero, on grids of every size, the same each time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bids_harmonize.grid import KNOTS, Cells, identity_curves
from bids_harmonize.network import AIR_KNOTS, ChannelNorm, CurveNetwork, cell_features, global_features

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
    torch.testing.assert_close(curves[0], identity_curves(Cells(shape, shape)), rtol=1e-5, atol=1e-6)


def test_untrained_network_of_full_size_changes_nothing() -> None:
    with torch.no_grad():
        curves = CurveNetwork()(random_histogram((5, 6, 7), 0))
    torch.testing.assert_close(curves[0], identity_curves(Cells((5, 6, 7), (5, 6, 7))), rtol=1e-5, atol=1e-6)


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
    assert network.config == {"widths": list(widths), "context": 8}
