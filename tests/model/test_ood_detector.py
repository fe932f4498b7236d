"""Features of a scan, and a classifier that a model card can hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bids_harmonize.model.bilateral_grid import KNOTS, Cells, splat
from bids_harmonize.model.network import AIR_KNOTS
from bids_harmonize.model.ood_detector import (
    FEATURES,
    OOD_BINS,
    SHELLS,
    OODDetector,
    OODScore,
    classifier,
    describe,
)

few = settings(max_examples=20)
shapes = st.tuples(*[st.integers(1, 12)] * 3)


def counts(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Counts of cells of 64 voxels."""
    return (
        torch.from_numpy(np.random.default_rng(seed).multinomial(64, [1 / KNOTS] * KNOTS, shape))
        .movedim(-1, 0)
        .double()
    )


def ball(radius: float, inner: float = 1.0, outer: float = 1.0, shift: int = 0) -> Tensor:
    """A ball in air, its core of another intensity, at 4 mm."""
    line = torch.arange(-40, 40)
    distance = torch.sqrt(
        sum(axis.square() for axis in torch.meshgrid(line - shift, line, line, indexing="ij"))
    )
    volume = torch.where(distance < radius / 2, inner, outer) * (distance < radius)
    return splat(volume.float(), Cells.of(volume.shape, (4.0, 4.0, 4.0)))


def ood_detector(seed: int = 0) -> OODDetector:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((6, FEATURES), (6,), (1, 6), (1,))
    layers = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    return OODDetector(
        centre=torch.zeros(FEATURES),
        spread=torch.ones(FEATURES),
        classifier=classifier(*layers),
        threshold=0.7,
    )


@few
@given(shapes)
def test_any_grid_is_described_by_finite_numbers(shape: tuple[int, ...]) -> None:
    features = describe(counts(shape))
    assert features.shape == (FEATURES,)
    assert features.dtype == torch.float32
    assert bool(features.isfinite().all())


@pytest.mark.parametrize("knot", [0, 1, 40])
def test_grids_of_one_intensity(knot: int) -> None:
    histogram = torch.zeros(KNOTS, 5, 6, 7, dtype=torch.float64)
    histogram[knot] = 64
    assert bool(describe(histogram).isfinite().all())


@few
@given(st.floats(0.2, 5))
def test_the_number_of_voxels_in_a_cell_does_not_matter(factor: float) -> None:
    # At most the cells that hold nothing at all.
    torch.testing.assert_close(describe(counts((6, 7, 5)) * 64 * factor), describe(counts((6, 7, 5)) * 64))


def test_left_and_right_do_not_matter() -> None:
    histogram = ball(30, 0.5) + 0.0
    torch.testing.assert_close(describe(histogram.flip(1)), describe(histogram), rtol=1e-4, atol=1e-4)


def test_where_the_head_lies_does_not_matter_much() -> None:
    first, second = describe(ball(24, 0.5)), describe(ball(24, 0.5, shift=8))
    # What changes is the share of the field of view outside of the outermost shell, and of it all.
    inside = (len(SHELLS) - 1) * (OOD_BINS + 1)
    torch.testing.assert_close(second[:inside], first[:inside], rtol=0.02, atol=0.02)


def test_core_and_rim_are_told_apart() -> None:
    dark, bright = describe(ball(30, 0.3, 1.0)), describe(ball(30, 1.0, 0.3))
    core = slice(0, OOD_BINS)
    assert dark[core].argmax() < bright[core].argmax()
    rim = slice(5 * (OOD_BINS + 1), 5 * (OOD_BINS + 1) + OOD_BINS)
    assert dark[rim].argmax() > bright[rim].argmax()


def test_larger_heads_have_larger_extents() -> None:
    start = len(SHELLS) * (OOD_BINS + 1)
    small, large = (describe(ball(radius))[start : start + 4] for radius in (12, 30))
    assert bool((large > small).all())


def test_air_is_no_foreground() -> None:
    histogram = counts((5, 5, 5))
    histogram[AIR_KNOTS:] = 0
    shells = describe(histogram)[: len(SHELLS) * (OOD_BINS + 1)]
    assert float(shells.abs().max()) == 0


def test_a_card_brings_back_the_classifier() -> None:
    card = json.loads(json.dumps(ood_detector().card()))
    stored = OODDetector.of_card(card)
    assert stored.threshold == 0.7
    # Weights are stored in half precision.
    first, second = (one.score_ood(ball(20)).score for one in (ood_detector(), stored))
    assert second == pytest.approx(first, abs=0.02)
    assert stored.card() == card


def damage(card: dict, how: str) -> dict:
    if how == "missing":
        del card["Threshold"]
    elif how == "too few":
        card["Tensors"].pop()
    elif how == "no base64":
        card["Tensors"][0]["Base64"] = "?"
    elif how == "cut":
        card["Tensors"][2]["Base64"] = card["Tensors"][2]["Base64"][:-4]
    else:
        card["Tensors"][2]["Shape"].reverse()
    return card


@pytest.mark.parametrize("how", ["missing", "too few", "no base64", "cut", "turned"])
def test_a_damaged_card(how: str) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        OODDetector.of_card(damage(ood_detector().card(), how))


def test_features_far_beyond_all_that_was_seen_count_no_more() -> None:
    one = ood_detector()
    far = torch.full((1, FEATURES), 8.0)
    torch.testing.assert_close(one.logits(far * 1000), one.logits(far))


@pytest.mark.parametrize(("score", "is_ood"), [(0.69, False), (0.7, False), (0.71, True)])
def test_scores_above_the_threshold_are_flagged(score: float, is_ood: bool) -> None:
    assert OODScore(score=score, threshold=0.7).is_ood is is_ood
