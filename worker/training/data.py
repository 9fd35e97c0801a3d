"""A dataset as tensors on the device, and the order in which batches are taken from it.

The order of epoch e is a permutation drawn from (seed, e), so the position in the whole run is one number: the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from traind.spec import Dataset
from worker.training.datasets import load
from worker.training.messages import DataSettings

BLOCK_BYTES = 1 << 20
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Data:
    """Inputs float32 [n, *input_shape]; targets int64 [n] of classes, or float32 [n, targets] of a regression."""

    train_inputs: Tensor
    train_targets: Tensor
    validation_inputs: Tensor
    validation_targets: Tensor


def load_data(
    dataset: Dataset, settings: DataSettings, device: torch.device, *, beat: Callable[[], None] = lambda: None
) -> Data:
    """The dataset, whole, on `device`; `beat` is called whenever some of a download arrived.

    Copied into torch's own memory, which begins at a boundary of 64 bytes: numpy's lies where the process's heap had
    room, and matrix kernels may round by alignment.

    Raises DatasetUnavailable or DatasetCorrupt.
    """
    arrays = load(dataset, settings, beat=beat)
    return Data(
        train_inputs=torch.tensor(arrays.train_inputs, device=device),
        train_targets=torch.tensor(arrays.train_targets, device=device),
        validation_inputs=torch.tensor(arrays.validation_inputs, device=device),
        validation_targets=torch.tensor(arrays.validation_targets, device=device),
    )


def batches(data: Data, *, batch_size: int, shuffle: bool, seed: int, step: int) -> Iterator[Batch]:
    """The batches of steps `step` + 1, `step` + 2, ... without end; an epoch's last one may be smaller.

    Rows are gathered for a block of batches at a time, and blocks are aligned to the epoch: a batch has the same
    numbers at the same memory alignment whatever step the run was resumed from. A full batch is taken as it lies.
    """
    n = len(data.train_targets)
    per_epoch = ceil(n / batch_size)
    row_bytes = data.train_inputs[0].nbytes + data.train_targets[0].nbytes
    block_rows = batch_size * max(1, BLOCK_BYTES // (batch_size * row_bytes))
    while True:
        epoch, done = divmod(step, per_epoch)
        order = epoch_order(n, seed=seed, epoch=epoch) if shuffle and batch_size < n else None
        first = done * batch_size
        for start in range(first - first % block_rows, n, block_rows):
            block = _block(data, order, start, min(start + block_rows, n))
            skip = (first - start) // batch_size if start < first else 0
            yield from list(zip(*(torch.split(part, batch_size) for part in block), strict=True))[skip:]
        step = (epoch + 1) * per_epoch


def epoch_order(n: int, *, seed: int, epoch: int) -> Tensor:
    """The permutation of range(n) for an epoch (from 0): int64 [n], on the CPU."""
    mixed = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64).item()
    return torch.randperm(n, generator=torch.Generator().manual_seed(mixed))


def _block(data: Data, order: Tensor | None, start: int, end: int) -> Batch:
    if order is None:
        return data.train_inputs[start:end], data.train_targets[start:end]
    rows = order[start:end].to(data.train_inputs.device)
    return data.train_inputs.index_select(0, rows), data.train_targets.index_select(0, rows)
