"""A dataset in memory, and the check that a source's content is what the catalogue says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.catalog.datasets import DatasetFacts
from worker.training.errors import DatasetCorrupt

Floats = NDArray[np.float32]
Targets = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True)
class Arrays:
    """Inputs float32 [n, *input_shape]; targets int64 [n] of classes, or float32 [n, targets] of a regression."""

    train_inputs: Floats
    train_targets: Targets
    validation_inputs: Floats
    validation_targets: Targets


def verify(facts: DatasetFacts, source: str, content: bytes, *, found_at: str) -> None:
    """Raise DatasetCorrupt where `content` has not the SHA-256 that the catalogue holds for `source`."""
    sha256, expected = hashlib.sha256(content).hexdigest(), facts.sources[source]
    if sha256 != expected:
        raise DatasetCorrupt(
            f"{found_at} is not the {source} of {facts.name}: the SHA-256 of its content is {sha256}, not {expected}; "
            "remove or replace it"
        )


def images(pixels: NDArray[np.uint8], facts: DatasetFacts) -> Floats:
    """[n, pixels] of uint8 to float32 [n, *input_shape], with the catalogue's mean and standard deviation."""
    values = pixels.astype(np.float32)
    if facts.normalisation is not None:
        values -= np.float32(facts.normalisation.mean)
        values /= np.float32(facts.normalisation.std)
    return values.reshape(-1, *facts.input_shape)
