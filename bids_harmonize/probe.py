"""The site probe: can a classifier tell from its intensities where a scan comes from?

It is trained anew on whatever it is asked about, and asked only about people whom it has not seen: a probe
that was trained on other images tells nothing about these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.metrics import balanced_accuracy

Array = NDArray[np.float64]

# With fewer, an interval would hold nearly all that is possible.
LEAST_PEOPLE = 5
LEAST_SITES = 2
MOST_FOLDS = 10
# One partition would be a matter of luck.
PARTITIONS = 10
# Discriminants of more scans hardly change, and those of sites dealt out are learned two thousand times.
MOST_TRAINED = 4000
# Of sites at random, to see what chance finds: answers depend on each other, so no formula tells.
DEALS = 200
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """How well the sites could be told apart.

    Attributes
    ----------
    accuracy
        Balanced: the mean over the sites of the share of people whose site was found.
    low, high
        95 % interval of it, as of a share of these people.
    chance
        What guessing gives on average.
    chance_low, chance_high
        What 95 % of probes find whose sites were dealt out at random.
    people
        How many people of each site were asked about.
    folds
        Parts, each of which was asked about by a classifier trained on the others.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    chance_low: float
    chance_high: float
    people: Mapping[str, int]
    folds: int

    @property
    def above_chance(self) -> bool:
        """Whether sites dealt out at random are seldom found as well."""
        return self.accuracy > self.chance_high


def probe_sites(
    features: Array, sites: Sequence[str | None], people: Sequence[str], seed: int = 0
) -> Probed | None:
    """Train and ask the probe; None where fewer than two sites have `LEAST_PEOPLE` people.

    Linear discriminants on standardized features, all sites equally likely, with the covariance within sites
    shrunk as Ledoit & Wolf (2004) give it. A person's scans at one site count as one: the mean of their
    probabilities over `PARTITIONS` partitions into folds decides.

    Parameters
    ----------
    features
        ``(scans, features)``, all finite.
    sites
        The site of each scan; None where it is not known.
    people
        Whose scan it is; all scans of a person are in one fold.
    seed
        Of the partitions and of the dealing.
    """
    asked = people_per_site(sites, people)
    if len(asked) < LEAST_SITES:
        return None
    names = sorted(asked)
    kept = [n for n, site in enumerate(sites) if site in asked]
    pairs = [(people[n], names.index(str(sites[n]))) for n in kept]
    units = list(dict.fromkeys(pairs))
    place = {pair: n for n, pair in enumerate(units)}
    question = _Question(
        features=features[kept],
        unit=np.array([place[pair] for pair in pairs]),
        people=[person for person, _ in units],
        folds=min(MOST_FOLDS, *asked.values()),
    )
    labels = np.array([label for _, label in units])
    rng = np.random.default_rng(seed)
    found = question.answer(labels, PARTITIONS, rng)
    accuracy, draws = balanced_accuracy([names[n] for n in labels], [names[n] for n in found])
    low, high = np.percentile(draws, INTERVAL)
    # One partition each: the spread is that of many.
    dealt = [_dealt_accuracy(question, rng.permutation(labels), rng) for _ in range(DEALS)]
    chance_low, chance_high = np.percentile(dealt, INTERVAL)
    return Probed(
        accuracy=accuracy,
        # Where all or none are found, the posterior keeps away from what is observed.
        low=min(float(low), accuracy),
        high=max(float(high), accuracy),
        chance=1 / len(names),
        chance_low=float(chance_low),
        chance_high=float(chance_high),
        people=asked,
        folds=question.folds,
    )


@dataclass(frozen=True, kw_only=True)
class _Question:
    """Scans, the unit (a person at a site) that each belongs to, and the person of each unit."""

    features: Array
    unit: NDArray[np.int_]
    people: Sequence[str]
    folds: int

    def answer(self, labels: NDArray[np.int_], partitions: int, rng: np.random.Generator) -> NDArray[np.int_]:
        """The site found for each unit, whose sites are said to be `labels`."""
        chances = np.zeros((len(labels), int(labels.max()) + 1))
        for _ in range(partitions):
            fold_of = partition(labels.tolist(), self.people, self.folds, rng)
            held = np.array([fold_of[person] for person in self.people])[self.unit]
            for fold in np.unique(held):
                ask = held == fold
                known = _evenly(np.flatnonzero(~ask), labels[self.unit], rng)
                found = site_chances(
                    self.features[known], labels[self.unit[known]], self.features[ask], chances.shape[1]
                )
                np.add.at(chances, self.unit[ask], found)
        return np.argmax(chances, axis=1)


def _evenly(scans: NDArray[np.int_], labels: NDArray[np.int_], rng: np.random.Generator) -> NDArray[np.int_]:
    """At most `MOST_TRAINED` of some scans, at random, as evenly of the sites as can be."""
    if len(scans) <= MOST_TRAINED:
        return scans
    shuffled = rng.permutation(scans)
    by_site = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, count = np.unique(labels[by_site], return_index=True, return_counts=True)
    place_in_site = np.arange(len(by_site)) - np.repeat(first, count)
    return by_site[np.argsort(place_in_site, kind="stable")[:MOST_TRAINED]]


def _dealt_accuracy(question: _Question, labels: NDArray[np.int_], rng: np.random.Generator) -> float:
    hit = question.answer(labels, 1, rng) == labels
    return float(np.mean([hit[labels == label].mean() for label in np.unique(labels)]))


def people_per_site(sites: Sequence[str | None], people: Sequence[str]) -> dict[str, int]:
    """Sites that have enough people for the probe, and how many these are."""
    pairs = {(site, person) for site, person in zip(sites, people, strict=True) if site is not None}
    counts = Counter(site for site, _ in pairs)
    return {site: number for site, number in sorted(counts.items()) if number >= LEAST_PEOPLE}


def partition(
    labels: Sequence[int], people: Sequence[str], folds: int, rng: np.random.Generator
) -> dict[str, int]:
    """A fold for every person, at random, with people of each site in as many folds as can be."""
    home = dict(zip(reversed(people), reversed(labels), strict=True))
    names = list(home)
    shuffled = [names[n] for n in rng.permutation(len(names))]
    ordered = sorted(shuffled, key=lambda person: home[person])
    return {person: n % folds for n, person in enumerate(ordered)}


def site_chances(train: Array, labels: NDArray[np.int_], asked: Array, sites: int) -> Array:
    """Probability of each site for each scan asked about, ``(scans, sites)``; 0 for sites not trained on."""
    centre, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread == 0] = 1.0
    train, asked = (train - centre) / spread, (asked - centre) / spread
    present, own = np.unique(labels, return_inverse=True)
    centroids = np.array([train[own == n].mean(axis=0) for n in range(len(present))])
    weights = np.linalg.solve(shrunk_covariance(train - centroids[own]), centroids.T)
    scores = asked @ weights - 0.5 * np.sum(centroids.T * weights, axis=0)
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances = np.zeros((len(asked), sites))
    chances[:, present] = likely / likely.sum(axis=1, keepdims=True)
    return chances


def shrunk_covariance(centred: Array) -> Array:
    """Covariance shrunk towards equal variances without correlation, by the share that is optimal.

    Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4.

    Parameters
    ----------
    centred
        ``(samples, features)``, of mean 0.
    """
    samples, features = centred.shape
    sample = centred.T @ centred / samples
    mean = float(np.trace(sample)) / features
    if mean == 0:
        return np.eye(features)
    target = mean * np.eye(features)
    distance = float(np.sum((sample - target) ** 2))
    noise = float(np.sum(np.sum(centred**2, axis=1) ** 2)) / samples**2 - float(np.sum(sample**2)) / samples
    # A trace of the target always, so that what is constant within sites can be divided by.
    share = min(max(noise / distance, 1e-6), 1.0) if distance > 0 else 1.0
    return share * target + (1 - share) * sample
