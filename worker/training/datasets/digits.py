"""The digits set that is shipped with the package; see README.md beside it for source and licence."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.catalog.datasets import DIGITS
from worker.training.datasets.arrays import Arrays, images, verify
from worker.training.errors import DatasetCorrupt

FILE = Path(__file__).with_name("digits.csv.gz")


def load_digits(file: Path = FILE) -> Arrays:
    """1,442 training and 355 validation images of [1, 8, 8]. Raises DatasetCorrupt."""
    try:
        content = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetCorrupt(f"{file} cannot be read ({error}); install traind again") from error
    verify(DIGITS, "digits.csv", content, found_at=str(file))
    table = np.array(content.replace(b"\n", b",").strip(b",").split(b","), dtype=np.uint8).reshape(-1, 65)
    inputs, classes = images(table[:, :64], DIGITS), table[:, 64].astype(np.int64)
    held_out = every_fifth_of_each_class(classes)
    return Arrays(inputs[~held_out], classes[~held_out], inputs[held_out], classes[held_out])


def every_fifth_of_each_class(classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for the 5th, 10th, 15th, ... sample of each class, in the order given: the validation split."""
    chosen = np.zeros(len(classes), dtype=np.bool_)
    for value in np.unique(classes):
        chosen[np.flatnonzero(classes == value)[4::5]] = True
    return chosen
