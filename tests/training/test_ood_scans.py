"""Foreign scans are what their kind says, and a classifier learns to tell them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.model.ood_detector import OODDetector
from bids_harmonize.training.ood_fit import FALSE_ALARM_RATE, PEOPLE, fit_ood_detector
from bids_harmonize.training.ood_scans import (
    FAMILIAR,
    OOD_CLASSES,
    VIEWS,
    _inverted,
    make_ood,
    of_another_person,
    sample_in_distribution,
    sample_ood,
)
from bids_harmonize.training.reference_group import ReferenceScan
from bids_harmonize.training.sources import ReferenceExample, reference_examples

few = settings(max_examples=10)
seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def group(small_group: list[ReferenceScan]) -> list[ReferenceExample]:
    return [example for scan in small_group for example in reference_examples(scan, brain=False)]


@few
@given(seeds)
def test_the_same_seed_draws_the_same_scan(group: list[ReferenceExample], seed: int) -> None:
    first, second = (sample_ood(group, np.random.default_rng(seed)) for _ in range(2))
    assert first.kind == second.kind
    np.testing.assert_array_equal(first.volume, second.volume)


@pytest.mark.parametrize("kind", OOD_CLASSES)
def test_every_kind_is_a_magnitude_image_scaled_to_its_bright_value(
    group: list[ReferenceExample], kind: str
) -> None:
    drawn = make_ood(group[0], kind, np.random.default_rng(3))
    assert drawn.kind == kind
    assert drawn.volume.dtype == np.float32
    assert np.all(np.isfinite(drawn.volume))
    assert drawn.volume.min() >= 0
    assert intensity_scale(drawn.volume) == pytest.approx(1, rel=0.01)


@few
@given(seeds)
def test_familiar_scans_are_scaled_to_their_bright_value(group: list[ReferenceExample], seed: int) -> None:
    drawn = sample_in_distribution(group, np.random.default_rng(seed))
    assert drawn.kind == FAMILIAR
    assert intensity_scale(drawn.volume) == pytest.approx(1, rel=0.01)


def test_inverted_scans_are_dark_where_they_were_bright(group: list[ReferenceExample]) -> None:
    example = group[0]
    for seed in range(5):
        turned = _inverted(example, np.random.default_rng(seed)).volume
        assert np.corrcoef(turned[example.region], example.volume[example.region])[0, 1] < -0.5


def test_views_are_small_and_show_something(group: list[ReferenceExample]) -> None:
    for seed in range(6):
        for kind in VIEWS:
            whole = group[seed % len(group)].region.shape
            volume = make_ood(group[seed % len(group)], kind, np.random.default_rng(seed)).volume
            assert min(n / m for n, m in zip(volume.shape, whole, strict=True)) < 0.36
            assert np.mean(volume > 0.05) > 0.05


def test_what_is_learned_fits_a_card_and_tells_scans_apart(group: list[ReferenceExample]) -> None:
    entry = fit_ood_detector(group, seed=1, scans=120)
    assert len(json.dumps(entry)) < 100_000
    ood_detector = OODDetector.of_card(entry)
    assert 0 < ood_detector.threshold < 1
    told = {kind: [int(number) for number in text.split(" of ")] for kind, text in entry["HeldOut"].items()}
    assert (
        told[FAMILIAR][1]
        == sum(total for kind, (_, total) in told.items() if kind != FAMILIAR)
        == 60 * PEOPLE
    )
    assert told[FAMILIAR][0] <= FALSE_ALARM_RATE * 60 * PEOPLE + 1
    assert sum(is_ood for kind, (is_ood, _) in told.items() if kind != FAMILIAR) > 20 * PEOPLE


@pytest.mark.parametrize("seed", range(6))
def test_another_person_has_another_head_and_the_same_contrast(
    group: list[ReferenceExample], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scan = sample_in_distribution(group, rng)
    other = of_another_person(scan, rng)
    assert other.kind == FAMILIAR
    assert other.volume.dtype == np.float32
    assert 0 <= other.volume.min() <= other.volume.max() <= scan.volume.max() * (1 + 1e-6)
    sizes = [n * length for n, length in zip(other.volume.shape, other.zooms, strict=True)]
    before = [n * length for n, length in zip(scan.volume.shape, scan.zooms, strict=True)]
    # Up to two voxels of an axis that is not a multiple of the thick slices are left out.
    ratios = [after / length for after, length in zip(sizes, before, strict=True)]
    assert 0.82 * (1 - 2 / min(scan.volume.shape)) <= min(ratios)
    assert max(ratios) <= 1.12


def test_the_same_seed_learns_the_same_and_leaves_other_random_numbers_alone(
    group: list[ReferenceExample],
) -> None:
    state = torch.get_rng_state()
    first, second = (fit_ood_detector(group[:2], seed=2, scans=24) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
