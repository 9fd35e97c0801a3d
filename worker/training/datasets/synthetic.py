"""Datasets drawn from a seed. The numbers come from one PCG64 stream in row order, whatever the chunk size.

The last fifth is for validation; features are standardised with the training split's mean and standard deviation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from traind.spec import SyntheticClassification, SyntheticRegression
from worker.training.datasets.arrays import Arrays, Floats, Targets

CHUNK_ROWS = 8_192


def make_classification(dataset: SyntheticClassification, *, chunk_rows: int = CHUNK_ROWS) -> Arrays:
    """Gaussian clusters of standard deviation `noise` around standard normal centres; classes are balanced."""
    random = np.random.Generator(np.random.PCG64(dataset.seed))
    centres = random.standard_normal((dataset.n_classes, dataset.n_features), dtype=np.float32)
    classes = random.permutation(np.arange(dataset.n_samples, dtype=np.int64) % dataset.n_classes)
    features = _normal(random, dataset.n_samples, dataset.n_features, chunk_rows)
    features *= np.float32(dataset.noise)
    for start in range(0, dataset.n_samples, chunk_rows):
        features[start : start + chunk_rows] += centres[classes[start : start + chunk_rows]]
    return _split(features, classes)


def make_regression(dataset: SyntheticRegression, *, chunk_rows: int = CHUNK_ROWS) -> Arrays:
    """targets = features @ weights + noise, with weights of norm 1 per target."""
    random = np.random.Generator(np.random.PCG64(dataset.seed))
    weights = random.standard_normal((dataset.n_targets, dataset.n_features), dtype=np.float32)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    features = _normal(random, dataset.n_samples, dataset.n_features, chunk_rows)
    targets = _normal(random, dataset.n_samples, dataset.n_targets, chunk_rows)
    targets *= np.float32(dataset.noise)
    targets += np.einsum("nf,tf->nt", features, weights)  # no BLAS, whose bits depend on its thread count
    return _split(features, targets)


def _normal(random: np.random.Generator, rows: int, columns: int, chunk_rows: int) -> Floats:
    values = np.empty((rows, columns), np.float32)
    for start in range(0, rows, chunk_rows):
        random.standard_normal(out=values[start : start + chunk_rows], dtype=np.float32)
    return values


def _split(features: Floats, targets: Targets) -> Arrays:
    n_train = len(features) - len(features) // 5
    mean, std = _statistics(features[:n_train])
    features -= mean.astype(np.float32)
    features /= np.where(std > 0, std, 1).astype(np.float32)
    return Arrays(features[:n_train], targets[:n_train], features[n_train:], targets[n_train:])


def _statistics(train: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation per feature, in float64 and without a float64 copy of the data."""
    mean = train.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(train), CHUNK_ROWS):
        squares += np.square(train[start : start + CHUNK_ROWS] - mean).sum(axis=0)
    return mean, np.sqrt(squares / len(train))
