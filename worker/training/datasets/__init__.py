"""Datasets as arrays, exactly as the catalogue describes them: split, normalised, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobs.catalog.datasets import FASHION_MNIST
from traind.spec import Dataset, Digits, FashionMnist, SyntheticClassification, SyntheticRegression
from worker.training.datasets.arrays import Arrays
from worker.training.datasets.digits import load_digits
from worker.training.datasets.fashion_mnist import fashion_mnist_lack, fashion_mnist_places, load_fashion_mnist
from worker.training.datasets.synthetic import make_classification, make_regression
from worker.training.messages import DataSettings

__all__ = ["Arrays", "lacking", "load", "places"]


def load(dataset: Dataset, settings: DataSettings, *, beat: Callable[[], None] = lambda: None) -> Arrays:
    """Read or make the dataset; `beat` is called whenever some of a download arrived.

    Raises DatasetUnavailable or DatasetCorrupt.
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


def lacking(settings: DataSettings) -> dict[str, str]:
    """The datasets that a look at their files does not find here, and why; those to be downloaded count as found."""
    why = fashion_mnist_lack(settings)
    return {} if why is None else {FASHION_MNIST.name: why}


def places(name: str, settings: DataSettings) -> list[Path]:
    """Where files of the dataset `name` may lie; none if it is made, or shipped with the package."""
    return fashion_mnist_places(settings) if name == FASHION_MNIST.name else []
