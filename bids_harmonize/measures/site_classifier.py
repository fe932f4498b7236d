"""Whether a classifier can tell from the intensities of a scan which site it comes from.

A classifier is trained anew on whatever scans are in question, and predicts only participants whom it has not
seen: one that was trained on other images would tell nothing about these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.measures.lda import class_probabilities
from bids_harmonize.measures.types import Array

Indices = NDArray[np.int_]

# With fewer participants at a site, the interval would hold nearly every possible accuracy.
MIN_PARTICIPANTS_PER_SITE = 5
MIN_SITES = 2
MAX_FOLDS = 10
# Predictions are averaged over this many partitions into folds, because one is a matter of luck.
PARTITIONS = 10
# Discriminants hardly change with more scans, and those of permuted sites are learned two thousand times.
MAX_TRAINING_SCANS = 4000
# Permutations of the site labels give the distribution of chance: predictions are correlated, so that there
# is no closed form.
N_PERMUTATIONS = 200
INTERVAL = (2.5, 97.5)
# Jeffreys' prior of a share is Beta(1/2, 1/2).
PRIOR = 0.5
POSTERIOR_DRAWS = 4000


@dataclass(frozen=True, kw_only=True)
class SiteClassification:
    """How well the sites could be told apart.

    Attributes
    ----------
    accuracy
        Balanced accuracy: the mean over the sites of the share of participants whose site was found.
    low, high
        Ends of its 95 % interval, from the posterior of these shares.
    chance
        The accuracy of guessing, on average.
    chance_low, chance_high
        Ends of the interval with 95 % of the accuracies that classifiers reach on permuted sites.
    participants
        Number of participants of each site that were classified.
    folds
        Into how many parts participants were divided, each of which was classified by what was learned from
        the others.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    chance_low: float
    chance_high: float
    participants: Mapping[str, int]
    folds: int

    @property
    def above_chance(self) -> bool:
        """Whether permuted sites are seldom found as well."""
        return self.accuracy > self.chance_high


def classify_sites(
    features: Array, sites: Sequence[str | None], participants: Sequence[str], seed: int = 0
) -> SiteClassification | None:
    """Cross-validate a linear discriminant analysis of the sites.

    All scans of a participant are in one fold. The scans of a participant at one site are classified as one,
    by the mean of their probabilities over `PARTITIONS` partitions into folds.

    Parameters
    ----------
    features
        ``(scans, features)``, all finite.
    sites
        The site of each scan; None where it is not known.
    participants
        The participant of each scan.
    seed
        Seed of the partitions and of the permutations.

    Returns
    -------
    SiteClassification or None
        None where fewer than two sites have `MIN_PARTICIPANTS_PER_SITE` participants.
    """
    counts = participants_per_site(sites, participants)
    if len(counts) < MIN_SITES:
        return None
    names = sorted(counts)
    kept = [n for n, site in enumerate(sites) if site in counts]
    pairs = [(participants[n], names.index(str(sites[n]))) for n in kept]
    units = list(dict.fromkeys(pairs))
    place = {pair: n for n, pair in enumerate(units)}
    dataset = _Dataset(
        features=features[kept],
        unit=np.array([place[pair] for pair in pairs]),
        participants=[participant for participant, _ in units],
        folds=min(MAX_FOLDS, *counts.values()),
    )
    labels = np.array([label for _, label in units])
    rng = np.random.default_rng(seed)
    predicted = dataset.predict(labels, PARTITIONS, rng)
    accuracy, draws = balanced_accuracy([names[n] for n in labels], [names[n] for n in predicted])
    low, high = np.percentile(draws, INTERVAL)
    # One partition per permutation is enough, because only the spread over all permutations is used.
    permuted = [_permuted_accuracy(dataset, rng.permutation(labels), rng) for _ in range(N_PERMUTATIONS)]
    chance_low, chance_high = np.percentile(permuted, INTERVAL)
    return SiteClassification(
        accuracy=accuracy,
        # If all or no participants are classified correctly, the posterior interval excludes the observed
        # accuracy, so it is widened to include it.
        low=min(float(low), accuracy),
        high=max(float(high), accuracy),
        chance=1 / len(names),
        chance_low=float(chance_low),
        chance_high=float(chance_high),
        participants=counts,
        folds=dataset.folds,
    )


def balanced_accuracy(true: Sequence[str], predicted: Sequence[str]) -> tuple[float, Array]:
    """Mean over the classes of the share of samples whose class was found, and draws from its posterior.

    The posterior of every class's share is a beta distribution (Brodersen et al. 2010,
    doi:10.1109/ICPR.2010.764; here with Jeffreys' prior): honest about classes of two samples, which a
    bootstrap is not.
    """
    rng = np.random.default_rng(0)
    hits = [
        np.array([p == t for t, p in zip(true, predicted, strict=True) if t == label])
        for label in sorted(set(true))
    ]
    draws = [rng.beta(PRIOR + hit.sum(), PRIOR + (~hit).sum(), POSTERIOR_DRAWS) for hit in hits]
    return float(np.mean([hit.mean() for hit in hits])), np.mean(draws, axis=0)


def participants_per_site(sites: Sequence[str | None], participants: Sequence[str]) -> dict[str, int]:
    """How many participants there are of each site that has at least `MIN_PARTICIPANTS_PER_SITE`."""
    pairs = {(site, who) for site, who in zip(sites, participants, strict=True) if site is not None}
    counts = Counter(site for site, _ in pairs)
    return {site: number for site, number in sorted(counts.items()) if number >= MIN_PARTICIPANTS_PER_SITE}


def partition(
    labels: Sequence[int], participants: Sequence[str], folds: int, rng: np.random.Generator
) -> dict[str, int]:
    """A fold for every participant at random, so that those of each site are in as many folds as can be.

    Who was scanned at several sites counts for the first of them.
    """
    home = dict(zip(reversed(participants), reversed(labels), strict=True))
    names = list(home)
    shuffled = [names[n] for n in rng.permutation(len(names))]
    ordered = sorted(shuffled, key=lambda participant: home[participant])
    return {participant: n % folds for n, participant in enumerate(ordered)}


def balanced_subsample(scans: Indices, labels: Indices, size: int, rng: np.random.Generator) -> Indices:
    """At most `size` scans at random, as evenly of the sites as can be.

    Parameters
    ----------
    scans
        Indices of the scans to choose from.
    labels
        The site of every scan that there is, also of those not to choose from.
    size
        How many scans are wanted; if there are no more, all are taken.
    rng
        Source of random numbers; none are drawn where all scans are taken.
    """
    if len(scans) <= size:
        return scans
    shuffled = rng.permutation(scans)
    by_site = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, count = np.unique(labels[by_site], return_index=True, return_counts=True)
    place_in_site = np.arange(len(by_site)) - np.repeat(first, count)
    return by_site[np.argsort(place_in_site, kind="stable")[:size]]


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """Scans, the unit (a participant at a site) that each belongs to, and the participant of each unit."""

    features: Array
    unit: Indices
    participants: Sequence[str]
    folds: int

    def predict(self, labels: Indices, partitions: int, rng: np.random.Generator) -> Indices:
        """The site found for each unit, where `labels` are taken for the sites."""
        probabilities = np.zeros((len(labels), int(labels.max()) + 1))
        for _ in range(partitions):
            fold_of = partition(labels.tolist(), self.participants, self.folds, rng)
            folds = np.array([fold_of[participant] for participant in self.participants])[self.unit]
            for fold in np.unique(folds):
                held_out = folds == fold
                training = balanced_subsample(
                    np.flatnonzero(~held_out), labels[self.unit], MAX_TRAINING_SCANS, rng
                )
                found = class_probabilities(
                    self.features[training],
                    labels[self.unit[training]],
                    self.features[held_out],
                    probabilities.shape[1],
                )
                np.add.at(probabilities, self.unit[held_out], found)
        return np.argmax(probabilities, axis=1)


def _permuted_accuracy(dataset: _Dataset, labels: Indices, rng: np.random.Generator) -> float:
    hit = dataset.predict(labels, 1, rng) == labels
    return float(np.mean([hit[labels == label].mean() for label in np.unique(labels)]))
