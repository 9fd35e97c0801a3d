"""Datasets as arrays, exactly as the catalogue describes them: split, normalised, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

from traind.spec import Dataset, Digits, FashionMnist, SyntheticClassification, SyntheticRegression
from worker.training.datasets.arrays import Arrays
from worker.training.datasets.digits import load_digits
from worker.training.datasets.fashion_mnist import load_fashion_mnist
from worker.training.datasets.synthetic import make_classification, make_regression
from worker.training.messages import DataSettings

__all__ = ["Arrays", "load"]


def load(dataset: Dataset, settings: DataSettings, *, beat: Callable[[], None] = lambda: None) -> Arrays:
    """Read or make the dataset; `beat` is called whenever some of a download arrived.

    Raises DatasetUnavailable, DownloadFailed or DatasetCorrupt.
    """
    match dataset:
        case Digits():
            return load_digits()
        case FashionMnist():
            return load_fashion_mnist(dataset, settings, beat)
        case SyntheticClassification():
            return make_classification(dataset)
        case SyntheticRegression():
            return make_regression(dataset)
