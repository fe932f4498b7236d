"""Linear discriminant analysis: Bayes' rule for normal classes of one covariance, and its shrinkage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from bids_harmonize.measures.lda import class_probabilities, shrunk_covariance


@pytest.mark.parametrize(("samples", "features"), [(30, 4), (24, 40), (300, 12)])
def test_probabilities_are_those_of_normal_classes_with_one_covariance(samples: int, features: int) -> None:
    rng = np.random.default_rng(samples)
    labels = np.arange(samples) % 3
    training = rng.normal(size=(samples, features)) + 0.5 * rng.normal(size=(3, features))[labels]
    training = (training - training.mean(axis=0)) / training.std(axis=0)
    queries = rng.normal(size=(20, features))
    means = np.array([training[labels == n].mean(axis=0) for n in range(3)])
    covariance = shrunk_covariance(training - means[labels])
    logs = np.stack([multivariate_normal(mean, covariance).logpdf(queries) for mean in means], axis=1)
    expected = np.exp(logs - logs.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert class_probabilities(training, labels, queries, 3) == pytest.approx(expected, abs=1e-8)


def test_a_class_without_samples_has_no_probability() -> None:
    rng = np.random.default_rng(0)
    found = class_probabilities(rng.normal(size=(20, 3)), np.repeat([0, 2], 10), rng.normal(size=(4, 3)), 3)
    assert found[:, 1] == pytest.approx(0)
    assert found.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize(("samples", "features"), [(8, 20), (50, 20), (400, 5)])
def test_shrinkage_is_that_of_scikit_learn(samples: int, features: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(samples)
    data = rng.normal(size=(samples, features)) @ rng.normal(size=(features, features))
    centred = data - data.mean(axis=0)
    wanted, share = covariance.ledoit_wolf(centred, assume_centered=True)
    assert 0 < share < 1
    assert shrunk_covariance(centred) == pytest.approx(wanted)
