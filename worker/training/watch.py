"""The run's own rules of divergence: a loss, or an update, that stays far above its start.

Beside NaN and infinities, which end every run (`worker.training.divergence`). The loop shows each step to a Watch; its
state is part of a checkpoint, so a resumed run counts on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from traind.spec import DivergenceRule
from worker.training.divergence import Divergence


@dataclass
class _Streak:
    """Steps in a row in which a value was above `limit` times its start, the first value above 0."""

    start: float | None = None
    count: int = 0
    good: int | None = None
    """Step of the newest checkpoint when the streak began."""

    def add(self, value: float, limit: float, last_saved: int | None) -> int:
        """The length of the streak with this value. NaN counts as above."""
        if self.start is None:
            self.start = value if value > 0 else None
        elif value <= limit * self.start:
            self.count = 0
        else:
            self.good = last_saved if self.count == 0 else self.good
            self.count += 1
        return self.count


class Watch:
    """Without a rule it watches nothing, and costs nothing."""

    def __init__(self, rule: DivergenceRule | None, model: nn.Module) -> None:
        self._rule = rule
        self._named = dict(model.named_parameters())
        self._loss, self._update = _Streak(), _Streak()
        self._before: list[Tensor] | None = None

    def see_loss(self, step: int, loss: float, last_saved: int | None) -> None:
        """To be called after the gradients of `step` are there, and before its update. Raises Divergence.

        `last_saved` is the step of the newest checkpoint. The tensor named is the one with the largest gradient.
        """
        if self._rule is None or self._rule.loss_factor is None:
            return
        length = self._loss.add(loss, self._rule.loss_factor, last_saved)
        if length >= self._rule.patience_steps:
            sizes = [0.0 if p.grad is None else p.grad.norm().item() for p in self._named.values()]
            raise self._divergence("loss", "loss_factor", self._loss, step, sizes)

    @torch.no_grad()
    def before_update(self) -> None:
        """To be called right before the update."""
        if self._rule is not None and self._rule.update_norm_factor is not None:
            self._before = [parameter.clone() for parameter in self._named.values()]

    @torch.no_grad()
    def see_update(self, step: int, rate: float, last_saved: int | None) -> None:
        """To be called right after the update of `step`, whose learning rates were `rate` times their start.

        Raises Divergence, which names the tensor that moved the most.
        """
        if self._before is None or self._rule is None or self._rule.update_norm_factor is None:
            return
        sizes = [(now - then).norm().item() for now, then in zip(self._named.values(), self._before, strict=True)]
        self._before = None
        if rate > 0:
            norm = sqrt(sum(size * size for size in sizes)) / rate
            length = self._update.add(norm, self._rule.update_norm_factor, last_saved)
            if length >= self._rule.patience_steps:
                raise self._divergence("update", "update_norm_factor", self._update, step, sizes)

    def _divergence(self, cause: Any, rule: str, streak: _Streak, step: int, sizes: list[float]) -> Divergence:
        factor = getattr(self._rule, rule)
        steps = "" if streak.count == 1 else f" for {streak.count:,} steps"
        what = f"was above {factor:g} times its start, {streak.start:.4g},{steps}"
        largest = max(zip(sizes, self._named, strict=True), key=_size)[1]
        return Divergence(cause, step, largest, what=what, rule=rule, good=streak.good)

    def good(self) -> int | None:
        """Step of the checkpoint before the oldest streak under way: the last good one if it becomes a divergence."""
        return min((s.good for s in (self._loss, self._update) if s.count and s.good is not None), default=None)

    def state(self) -> dict[str, Any] | None:
        """As JSON; None where there is no rule."""
        return None if self._rule is None else {"loss": asdict(self._loss), "update": asdict(self._update)}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on from there; a checkpoint of an older release has no state, and the start is the next step's."""
        if state is not None:
            self._loss, self._update = _Streak(**state["loss"]), _Streak(**state["update"])


def _size(entry: tuple[float, str]) -> float:
    """NaN is the largest."""
    return entry[0] if entry[0] == entry[0] else float("inf")
