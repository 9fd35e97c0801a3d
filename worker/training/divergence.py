"""Divergence: loss, gradient or parameters became non-finite, or the run met a rule of its own (`training.watch`).

It ends the run as an outcome, never as an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any, Literal

import torch
from torch import Tensor, nn

Cause = Literal["loss", "gradient", "parameter", "update"]


class Divergence(Exception):
    """Raised inside the loop, caught by it. `tensor` is the first parameter that is not finite, or its gradient is not.

    Where all are, and only the loss overflows, it is the one with the largest gradient, or value after an evaluation.
    For a rule of the run's own (`rule`, its field in the spec) it is the one that contributed the most, and `good` is
    the step of the last checkpoint before it began.
    """

    def __init__(
        self,
        cause: Cause,
        step: int,
        tensor: str | None,
        *,
        what: str = "became non-finite",
        rule: str | None = None,
        good: int | None = None,
    ) -> None:
        where = f" ({tensor})" if tensor else ""
        super().__init__(f"the {cause}{where} {what} in step {step:,}")
        self.cause, self.step, self.tensor, self.rule, self.good = cause, step, tensor, rule, good

    def error(self, last_checkpoint_step: int | None) -> dict[str, Any]:
        """As it is kept with the job."""
        return {
            "code": "diverged",
            "message": str(self),
            "retryable": False,
            "step": self.step,
            "cause": self.cause,
            "rule": self.rule,
            "tensor": self.tensor,
            "last_checkpoint_step": last_checkpoint_step if self.rule is None else self.good,
        }


def check_step(model: nn.Module, gradients: Iterable[Tensor | None], step: int, loss: float) -> None:
    """Raise Divergence where the loss or any gradient of this step is NaN or infinite.

    A finite sum proves a tensor finite and is quick; only another sum (which may overflow) is looked into.
    """
    if not isfinite(loss):
        broken = first_non_finite(model.named_parameters()) or first_non_finite(_gradients(model))
        raise Divergence("loss", step, broken or largest(_gradients(model)))
    for gradient in gradients:
        if gradient is not None and not isfinite(gradient.sum().item()):
            if tensor := first_non_finite(_gradients(model)):
                raise Divergence("gradient", step, tensor)
            return


def _gradients(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)


def check_parameters(model: nn.Module, step: int) -> None:
    """Raise Divergence where a parameter is NaN or infinite after step `step`: such a checkpoint is no good one."""
    if tensor := first_non_finite(model.named_parameters()):
        raise Divergence("parameter", step, tensor)


@torch.no_grad()
def largest(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the tensor, of finite ones, with the largest value, whatever its sign."""
    sizes = {name: tensor.abs().max().item() for name, tensor in named if tensor.numel()}
    return max(sizes, key=sizes.__getitem__, default=None)


@torch.no_grad()
def first_non_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor that holds a NaN or an infinity."""
    for name, tensor in named:
        if not isfinite(tensor.sum().item()) and not torch.isfinite(tensor).all():
            return name
    return None
