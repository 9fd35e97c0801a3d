"""Datasets: shape, sizes, classes, split and normalisation, and the hash of their identity.

The trainer loads exactly what stands here (`worker.training.datasets`); nothing is read in this module.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jobs.catalog.entries import Entry, entry
from traind.spec import Dataset, Digits, FashionMnist, SyntheticClassification, SyntheticRegression


@dataclass(frozen=True)
class Normalisation:
    """value -> (value - mean) / std, with the statistics of the whole training split in the source's own unit."""

    mean: float
    std: float


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset without reading it. `sources` are SHA-256 of its files' (uncompressed) content."""

    name: str
    version: int
    input_shape: tuple[int, ...]
    n_outputs: int
    loss: Literal["cross_entropy", "mse"]
    n_train: int
    n_validation: int
    split: str
    values: str
    """What its raw values are, and how they lie in `input_shape`."""
    classes: tuple[str, ...] | None = None
    """Names of the classes by index; None if they are only numbers, or there are none."""
    sources: dict[str, str] = field(default_factory=dict)
    normalisation: Normalisation | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """SHA-256 of the identity: two jobs with the same hash saw the same numbers in the same order."""
        identity = {
            "name": self.name,
            "version": self.version,
            "sources": self.sources,
            "split": self.split,
            "normalisation": self.normalisation and [self.normalisation.mean, self.normalisation.std],
            "parameters": self.parameters,
        }
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


DIGITS = DatasetFacts(
    name="digits",
    version=1,
    input_shape=(1, 8, 8),
    n_outputs=10,
    loss="cross_entropy",
    n_train=1_442,
    n_validation=355,
    split="validation: the 5th, 10th, 15th, ... sample of each class in the file's order",
    values="grey levels from 0 (no ink) to 16, as [channel, row, column]",
    classes=tuple("0123456789"),
    sources={"digits.csv": "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"},
    normalisation=Normalisation(mean=4.882173196948682, std=6.018520911287141),
)

FASHION_MNIST = DatasetFacts(
    name="fashion_mnist",
    version=1,
    input_shape=(1, 28, 28),
    n_outputs=10,
    loss="cross_entropy",
    n_train=60_000,
    n_validation=10_000,
    split="train: the first train_size of argsort(PCG64(0).random_raw(60000)), stable; validation: the t10k files",
    values="grey levels from 0 (background) to 255, as [channel, row, column]",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    sources={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    normalisation=Normalisation(mean=72.94035223214286, std=90.021182351305261),
)


def facts(dataset: Dataset) -> DatasetFacts:
    """What is known of the dataset that a spec names."""
    match dataset:
        case Digits():
            return DIGITS
        case FashionMnist():
            return replace(FASHION_MNIST, n_train=dataset.train_size, parameters={"train_size": dataset.train_size})
        case SyntheticClassification():
            return _synthetic(dataset, n_outputs=dataset.n_classes, loss="cross_entropy")
        case SyntheticRegression():
            return _synthetic(dataset, n_outputs=dataset.n_targets, loss="mse")


def describe() -> list[Entry]:
    """Every dataset, with the JSON schema of its parameters."""
    return [entry(part) for part in (Digits, FashionMnist, SyntheticClassification, SyntheticRegression)]


def _synthetic(
    dataset: SyntheticClassification | SyntheticRegression, *, n_outputs: int, loss: Literal["cross_entropy", "mse"]
) -> DatasetFacts:
    n_validation = dataset.n_samples // 5
    return DatasetFacts(
        name=dataset.name,
        version=1,
        input_shape=(dataset.n_features,),
        n_outputs=n_outputs,
        loss=loss,
        n_train=dataset.n_samples - n_validation,
        n_validation=n_validation,
        split="validation: the last fifth",
        values="features, standardised where the data set is made",
        parameters=dataset.model_dump(exclude={"name"}),
    )
