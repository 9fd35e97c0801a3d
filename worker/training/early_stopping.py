"""Early stopping: when the watched metric has not improved for `patience` evaluations in a row."""

from __future__ import annotations

from typing import Any

from traind.spec import EarlyStopping
from worker.training.metrics import better


class Stopping:
    """Counts evaluations without improvement. Without a rule it never stops."""

    def __init__(self, rule: EarlyStopping | None) -> None:
        self._rule = rule
        self._best: float | None = None
        self._waited = 0
        self.stopped = False

    def update(self, values: dict[str, float]) -> None:
        """Take note of one evaluation's values, by metric key."""
        if self._rule is None:
            return
        value = values[self._rule.metric]
        if self._best is None or better(self._rule.metric, value, self._best, margin=self._rule.min_delta):
            self._best, self._waited = value, 0
        else:
            self._waited += 1
            self.stopped = self._waited >= self._rule.patience

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited, "stopped": self.stopped}

    def restore(self, state: dict[str, Any]) -> None:
        self._best, self._waited, self.stopped = state["best"], state["waited"], state["stopped"]
