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
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """How well the sites could be told apart.

    Attributes
    ----------
    accuracy
        Balanced: the mean over the sites of the share of people whose site was found.
    low, high
        95 % interval of it.
    chance
        What guessing would give.
    people
        How many people of each site were asked about.
    folds
        Parts, each of which was asked about by a classifier trained on the others.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    people: Mapping[str, int]
    folds: int


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
        Of the partitions.
    """
    asked = people_per_site(sites, people)
    if len(asked) < LEAST_SITES:
        return None
    kept = [n for n, site in enumerate(sites) if site in asked]
    known = features[kept]
    names = sorted(asked)
    labels = np.array([names.index(str(sites[n])) for n in kept])
    who = [people[n] for n in kept]
    folds = min(MOST_FOLDS, *asked.values())
    chances = np.zeros((len(kept), len(names)))
    rng = np.random.default_rng(seed)
    for _ in range(PARTITIONS):
        fold_of = partition(labels.tolist(), who, folds, rng)
        held = np.array([fold_of[person] for person in who])
        for fold in range(folds):
            ask = held == fold
            chances[ask] += site_chances(known[~ask], labels[~ask], known[ask], len(names))
    units: dict[tuple[str, int], Array] = {}
    for person, label, chance in zip(who, labels.tolist(), chances, strict=True):
        units[person, label] = units.get((person, label), np.zeros(len(names))) + chance
    true = [names[label] for _, label in units]
    accuracy, draws = balanced_accuracy(true, [names[int(np.argmax(total))] for total in units.values()])
    low, high = np.percentile(draws, INTERVAL)
    return Probed(
        accuracy=accuracy,
        # Where all or none are found, the posterior keeps away from what is observed.
        low=min(float(low), accuracy),
        high=max(float(high), accuracy),
        chance=1 / len(names),
        people=asked,
        folds=folds,
    )


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
