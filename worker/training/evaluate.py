"""Loss and accuracy on the validation data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.training.data import Data

EVALUATION_BATCH = 1_000
LossFunction = Callable[[Tensor, Tensor], Tensor]


def loss_function(kind: Literal["cross_entropy", "mse"]) -> LossFunction:
    """cross_entropy: [batch, classes] and [batch]; mse: both [batch, targets]. The mean over the batch, a scalar."""
    if kind == "mse":
        return functional.mse_loss
    return functional.cross_entropy


@torch.no_grad()
def evaluate(model: nn.Module, data: Data, loss_of: LossFunction, heartbeat: Callable[[], None]) -> dict[str, float]:
    """{"val/loss": mean over the samples} and, for classes, "val/accuracy". Calls `heartbeat` after each batch.

    The model is put back into training mode; no random numbers are drawn.
    """
    inputs, targets = data.validation_inputs, data.validation_targets
    loss, correct, n = 0.0, 0, len(targets)
    model.eval()
    for start in range(0, n, EVALUATION_BATCH):
        wanted = targets[start : start + EVALUATION_BATCH]
        outputs = model(inputs[start : start + EVALUATION_BATCH])  # [batch, n_outputs]
        loss += loss_of(outputs, wanted).item() * len(wanted)
        if not wanted.is_floating_point():
            correct += count_correct(outputs, wanted)
        heartbeat()
    model.train()
    values = {"val/loss": loss / n}
    return values if targets.is_floating_point() else values | {"val/accuracy": correct / n}


def count_correct(outputs: Tensor, targets: Tensor) -> int:
    """How many rows of outputs [batch, classes] are largest at their target [batch]."""
    return int(torch.count_nonzero(outputs.argmax(1) == targets).item())
