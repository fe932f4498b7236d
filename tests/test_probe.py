"""The site probe: chance where there is nothing to find, near 1 where there is, and never a known person."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize import probe
from bids_harmonize.probe import (
    LEAST_PEOPLE,
    partition,
    people_per_site,
    probe_sites,
    shrunk_covariance,
    site_chances,
)

FEATURES = 12


def scans(seed: int, sizes: dict[str, int], effect: float, per_person: int = 1):
    """Features, sites and people; every site has its own mean, every person and scan some noise."""
    rng = np.random.default_rng(seed)
    features, sites, people = [], [], []
    for site, size in sizes.items():
        mean = effect * rng.normal(size=FEATURES)
        for n in range(size):
            person = mean + rng.normal(size=FEATURES)
            for _ in range(per_person):
                features.append(person + 0.1 * rng.normal(size=FEATURES))
                sites.append(site)
                people.append(f"{site}-{n}")
    return np.array(features), sites, people


def test_far_sites_are_told_apart() -> None:
    found = probe_sites(*scans(0, {"a": 12, "b": 9, "c": 20}, effect=5))
    assert found is not None
    assert found.accuracy > 0.97
    assert (found.chance, found.folds) == (pytest.approx(1 / 3), 9)
    assert found.chance < found.low < found.accuracy <= found.high
    assert found.above_chance and found.low > found.chance_high
    assert found.people == {"a": 12, "b": 9, "c": 20}


@pytest.mark.parametrize("effect", [0, 5], ids=["of one kind", "of three kinds"])
def test_shuffled_sites_are_found_by_chance_only(effect: float) -> None:
    within = []
    for seed in range(12):
        features, sites, people = scans(seed, {"a": 10, "b": 10, "c": 20}, effect)
        shuffled = np.random.default_rng(seed).permutation(features)
        found = probe_sites(shuffled, sites, people)
        assert found is not None
        assert found.chance_low < found.chance < found.chance_high
        within.append(found.chance_low <= found.accuracy <= found.chance_high)
    # Of 12 intervals of 95 %, fewer than 9 would hold with a probability of 1 in 500.
    assert sum(within) >= 9


def test_people_are_not_recognized_in_place_of_sites() -> None:
    # Many scans of each person, alike among themselves, and nothing that is of the site.
    found = probe_sites(*scans(3, {"a": 10, "b": 10}, effect=0, per_person=12))
    assert found is not None
    assert found.low < found.chance < found.high
    assert not found.above_chance


@settings(max_examples=5)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_neither_units_nor_the_order_of_scans_matter(seed: int, gain: float, offset: float) -> None:
    features, sites, people = scans(seed, {"a": 6, "b": 7}, effect=0.7)
    one = probe_sites(features, sites, people)
    other = probe_sites(gain * features + offset, sites, people)
    assert one is not None and other is not None
    assert other.accuracy == pytest.approx(one.accuracy)


@pytest.mark.parametrize(
    "sizes", [{}, {"a": 50}, {"a": 50, "b": LEAST_PEOPLE - 1}, {"a": 4, "b": 4, "c": 4}], ids=str
)
def test_there_is_no_number_where_there_are_too_few(sizes: dict[str, int]) -> None:
    features, sites, people = scans(0, sizes, effect=5)
    assert probe_sites(features.reshape(-1, FEATURES), sites, people) is None


def test_scans_of_no_site_and_of_small_sites_are_left_out() -> None:
    features, sites, people = scans(1, {"a": 8, "b": 8, "small": 2, "none": 30}, effect=2)
    labels = [None if site == "none" else site for site in sites]
    found = probe_sites(features, labels, people)
    assert found is not None
    assert found.people == {"a": 8, "b": 8}


def test_of_many_scans_some_of_every_site_are_trained_on(monkeypatch) -> None:
    trained: list[np.ndarray] = []

    def watched(train, labels, asked, sites):
        trained.append(np.bincount(labels, minlength=sites))
        return site_chances(train, labels, asked, sites)

    monkeypatch.setattr(probe, "MOST_TRAINED", 30)
    monkeypatch.setattr(probe, "site_chances", watched)
    found = probe_sites(*scans(0, {"a": 10, "b": 25, "c": 50}, effect=5))
    assert found is not None and found.accuracy > 0.97
    assert {int(counts.sum()) for counts in trained} == {30}
    # Of site a, one person is asked about.
    assert all(counts[0] == 9 and abs(counts[1] - counts[2]) <= 1 for counts in trained[:100])


def test_many_scans_of_one_person_are_one_person() -> None:
    assert people_per_site(["a"] * 50, ["sub-1"] * 50) == {}


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(5, 10))
def test_a_person_is_in_one_fold_and_a_site_in_all(seed: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    people = [f"{n}" for n in range(40)]
    labels = [n % 3 for n in range(40)]
    # Some people were scanned twice, two of them at two sites.
    fold_of = partition([*labels, 0, 1, 2], [*people, "0", "5", "9"], folds, rng)
    assert set(fold_of) == set(people)
    for site in range(3):
        per_fold = np.bincount([fold_of[p] for p, s in zip(people, labels, strict=True) if s == site])
        assert len(per_fold) == folds
        assert per_fold.max() - per_fold.min() <= 1


def test_a_site_that_was_not_trained_on_has_no_chance() -> None:
    rng = np.random.default_rng(0)
    chances = site_chances(rng.normal(size=(20, 3)), np.repeat([0, 2], 10), rng.normal(size=(4, 3)), 3)
    assert chances[:, 1] == pytest.approx(0)
    assert chances.sum(axis=1) == pytest.approx(1)


@pytest.mark.filterwarnings("error")
def test_constant_features_do_no_harm() -> None:
    features, sites, people = scans(0, {"a": 6, "b": 6}, effect=5)
    constant = np.hstack([features, np.ones((12, 2))])
    assert probe_sites(constant, sites, people) is not None
    nothing = probe_sites(np.ones((12, 4)), sites, people)
    assert nothing is not None and nothing.accuracy == pytest.approx(0.5) and not nothing.above_chance


@pytest.mark.parametrize(("samples", "features"), [(8, 20), (50, 20), (400, 5)])
def test_shrinkage_is_that_of_scikit_learn(samples: int, features: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(samples)
    data = rng.normal(size=(samples, features)) @ rng.normal(size=(features, features))
    centred = data - data.mean(axis=0)
    wanted, share = covariance.ledoit_wolf(centred, assume_centered=True)
    assert 0 < share < 1
    assert shrunk_covariance(centred) == pytest.approx(wanted)
