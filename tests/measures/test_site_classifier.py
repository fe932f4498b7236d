"""Classifying sites: chance where there is nothing to find, near 1 where there is, and nobody seen before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.measures.site_classifier import (
    MIN_PARTICIPANTS_PER_SITE,
    balanced_accuracy,
    balanced_subsample,
    classify_sites,
    participants_per_site,
    partition,
)

FEATURES = 12


def scans(seed: int, sizes: dict[str, int], effect: float, per_participant: int = 1):
    """Features, sites and participants; each site has its own mean, each participant and scan some noise."""
    rng = np.random.default_rng(seed)
    features, sites, participants = [], [], []
    for site, size in sizes.items():
        mean = effect * rng.normal(size=FEATURES)
        for n in range(size):
            participant = mean + rng.normal(size=FEATURES)
            for _ in range(per_participant):
                features.append(participant + 0.1 * rng.normal(size=FEATURES))
                sites.append(site)
                participants.append(f"{site}-{n}")
    return np.array(features), sites, participants


def test_far_sites_are_told_apart() -> None:
    found = classify_sites(*scans(0, {"a": 12, "b": 9, "c": 20}, effect=5))
    assert found is not None
    assert found.accuracy > 0.97
    assert (found.chance, found.folds) == (pytest.approx(1 / 3), 9)
    assert found.chance < found.low < found.accuracy <= found.high
    assert found.above_chance and found.low > found.chance_high
    assert found.participants == {"a": 12, "b": 9, "c": 20}


@pytest.mark.process
@pytest.mark.parametrize("effect", [0, 5], ids=["of one kind", "of three kinds"])
def test_shuffled_sites_are_found_by_chance_only(effect: float) -> None:
    within = []
    for seed in range(12):
        features, sites, participants = scans(seed, {"a": 10, "b": 10, "c": 20}, effect)
        shuffled = np.random.default_rng(seed).permutation(features)
        found = classify_sites(shuffled, sites, participants)
        assert found is not None
        assert found.chance_low < found.chance < found.chance_high
        within.append(found.chance_low <= found.accuracy <= found.chance_high)
    # Of 12 intervals of 95 %, fewer than 9 would hold with a probability of 1 in 500.
    assert sum(within) >= 9


def test_participants_are_not_recognized_in_place_of_sites() -> None:
    # Many scans of each participant, alike among themselves, and nothing that is of the site.
    found = classify_sites(*scans(3, {"a": 10, "b": 10}, effect=0, per_participant=12))
    assert found is not None
    assert found.low < found.chance < found.high
    assert not found.above_chance


@pytest.mark.process
@settings(max_examples=5)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_neither_units_nor_the_order_of_scans_matter(seed: int, gain: float, offset: float) -> None:
    features, sites, participants = scans(seed, {"a": 6, "b": 7}, effect=0.7)
    one = classify_sites(features, sites, participants)
    other = classify_sites(gain * features + offset, sites, participants)
    assert one is not None and other is not None
    assert other.accuracy == pytest.approx(one.accuracy)


@pytest.mark.parametrize(
    "sizes", [{}, {"a": 50}, {"a": 50, "b": MIN_PARTICIPANTS_PER_SITE - 1}, {"a": 4, "b": 4, "c": 4}], ids=str
)
def test_there_is_no_number_where_there_are_too_few(sizes: dict[str, int]) -> None:
    features, sites, participants = scans(0, sizes, effect=5)
    assert classify_sites(features.reshape(-1, FEATURES), sites, participants) is None


def test_scans_of_no_site_and_of_small_sites_are_left_out() -> None:
    features, sites, participants = scans(1, {"a": 8, "b": 8, "small": 2, "none": 30}, effect=2)
    labels = [None if site == "none" else site for site in sites]
    found = classify_sites(features, labels, participants)
    assert found is not None
    assert found.participants == {"a": 8, "b": 8}


@given(st.integers(0, 1000), st.integers(1, 120))
def test_of_many_scans_some_of_every_site_are_trained_on(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [10, 25, 60])
    # The last five scans of every site are held out.
    scans = np.concatenate([np.flatnonzero(labels == site)[:-5] for site in range(3)])
    chosen = balanced_subsample(scans, labels, size, rng)
    assert len(set(chosen)) == len(chosen) == min(size, len(scans))
    assert set(chosen) <= set(scans)
    counts, available = np.bincount(labels[chosen], minlength=3), np.array([5, 20, 55])
    # No site has two scans more than one that has some left.
    assert all(counts.max() - count <= 1 for count in counts[counts < available])


def test_many_scans_of_one_participant_are_one_participant() -> None:
    assert participants_per_site(["a"] * 50, ["sub-1"] * 50) == {}


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(5, 10))
def test_a_participant_is_in_one_fold_and_a_site_in_all(seed: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    participants = [f"{n}" for n in range(40)]
    labels = [n % 3 for n in range(40)]
    # Some participants were scanned twice, two of them at two sites.
    fold_of = partition([*labels, 0, 1, 2], [*participants, "0", "5", "9"], folds, rng)
    assert set(fold_of) == set(participants)
    for site in range(3):
        per_fold = np.bincount([fold_of[p] for p, s in zip(participants, labels, strict=True) if s == site])
        assert len(per_fold) == folds
        assert per_fold.max() - per_fold.min() <= 1


@pytest.mark.filterwarnings("error")
def test_constant_features_do_no_harm() -> None:
    features, sites, participants = scans(0, {"a": 6, "b": 6}, effect=5)
    constant = np.hstack([features, np.ones((12, 2))])
    assert classify_sites(constant, sites, participants) is not None
    nothing = classify_sites(np.ones((12, 4)), sites, participants)
    assert nothing is not None and nothing.accuracy == pytest.approx(0.5) and not nothing.above_chance


def test_every_class_counts_as_much() -> None:
    true = ["a"] * 8 + ["b"] * 2
    assert balanced_accuracy(true, ["a"] * 10)[0] == pytest.approx(0.5)
    assert balanced_accuracy(true, true)[0] == 1


def test_interval_holds_the_accuracy_and_is_wide_for_few_scans() -> None:
    true = [f"{k % 2}" for k in range(40)]
    found = [label if k % 10 < 8 else "2" for k, label in enumerate(true)]
    few, many = (balanced_accuracy(true[:n], found[:n]) for n in (10, 40))
    low, high = np.percentile(many[1], [2.5, 97.5])
    assert low < many[0] < high
    assert few[1].std() > 1.5 * many[1].std()
    assert few[1].min() >= 0 and few[1].max() <= 1
