"""The digits as their source has them, by other means than the trainer's."""

from __future__ import annotations

import gzip

import numpy as np
import torch
from torch import Tensor

from worker.training.datasets.digits import FILE, every_fifth_of_each_class


def raw_digits() -> tuple[Tensor, Tensor]:
    """The validation images, uint8 [355, 8, 8] of 0 to 16, and their classes."""
    rows = gzip.decompress(FILE.read_bytes()).decode().split()
    table = np.array([[int(value) for value in row.split(",")] for row in rows])
    table = table[every_fifth_of_each_class(table[:, 64])]
    return torch.tensor(table[:, :64], dtype=torch.uint8).view(-1, 8, 8), torch.tensor(table[:, 64])
