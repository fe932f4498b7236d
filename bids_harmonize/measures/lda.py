"""Linear discriminant analysis with a shrunk covariance, in numpy alone.

scikit-learn would be a large dependency for this one classifier; a test compares the shrinkage with its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.measures.types import Array

# The target always has a share in the covariance, so that features constant within classes can be divided by.
MIN_SHRINKAGE = 1e-6


def class_probabilities(training: Array, labels: NDArray[np.int_], queries: Array, n_classes: int) -> Array:
    """Train on labelled samples, and tell the probability of each class for others.

    Features are standardized, all classes are equally likely, and the covariance within classes is that of
    `shrunk_covariance`.

    Parameters
    ----------
    training
        ``(samples, features)``, all finite.
    labels
        The class of each of these samples, from 0.
    queries
        ``(queries, features)``: samples of unknown class.
    n_classes
        How many classes there are; some may have no sample.

    Returns
    -------
    ndarray
        ``(queries, n_classes)``; rows sum to 1. Classes without a training sample have probability 0.
    """
    centre, spread = training.mean(axis=0), training.std(axis=0)
    spread[spread == 0] = 1.0
    training, queries = (training - centre) / spread, (queries - centre) / spread
    present, own = np.unique(labels, return_inverse=True)
    centroids = np.array([training[own == n].mean(axis=0) for n in range(len(present))])
    weights = np.linalg.solve(shrunk_covariance(training - centroids[own]), centroids.T)
    scores = queries @ weights - 0.5 * np.sum(centroids.T * weights, axis=0)
    likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = np.zeros((len(queries), n_classes))
    probabilities[:, present] = likelihoods / likelihoods.sum(axis=1, keepdims=True)
    return probabilities


def shrunk_covariance(centred: Array) -> Array:
    """Covariance shrunk towards equal variances without correlation, by the share that is optimal.

    Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4.

    Parameters
    ----------
    centred
        ``(samples, features)``, of mean 0.

    Returns
    -------
    ndarray
        ``(features, features)``, positive definite.
    """
    samples, features = centred.shape
    sample = centred.T @ centred / samples
    mean = float(np.trace(sample)) / features
    if mean == 0:
        return np.eye(features)
    target = mean * np.eye(features)
    distance = float(np.sum((sample - target) ** 2))
    noise = float(np.sum(np.sum(centred**2, axis=1) ** 2)) / samples**2 - float(np.sum(sample**2)) / samples
    share = min(max(noise / distance, MIN_SHRINKAGE), 1.0) if distance > 0 else 1.0
    return share * target + (1 - share) * sample
