"""Metric points on their way out: windows of log_every steps, columns of points not sent yet, and the summary.

A window covers steps aligned to multiples of log_every, not to attempts; an open one is part of a checkpoint. Its
point stands at its last step. Loss and accuracy are means over its samples, the gradient norm over its steps; the
learning rates are those of its last step.
Evaluations and telemetry are points of single steps.
"""

from __future__ import annotations

from math import isfinite
from time import perf_counter
from typing import Any

from torch.optim import Optimizer

from worker.training.messages import Metrics, Summary


def better(key: str, value: float, best: float, *, margin: float = 0.0) -> bool:
    """Whether `value` beats `best` by more than `margin`: accuracy upwards, all else downwards. NaN never does."""
    return value > best + margin if key.endswith("accuracy") else value < best - margin


class Recorder:
    """Collects what the loop observes. `take` hands it over as a message; `state` is for the checkpoint."""

    def __init__(
        self, optimizer: Optimizer, *, started: float, log_every: int, accuracy: bool, grad_norm: bool
    ) -> None:
        """`started` is the attempt's start on perf_counter's clock: the zero of the points' times."""
        self._log_every = log_every
        self._optimizer = optimizer
        self._started = started
        self._keys = ["train/loss", *(["train/accuracy"] if accuracy else []), *(["grad_norm"] if grad_norm else [])]
        self._sums = [0.0] * len(self._keys)
        self._count = 0
        self._weight = 0.0
        self._single: tuple[float, ...] | None = None
        self._summary: Summary = {"last": {}, "best": {}}
        self._clear()

    def _clear(self) -> None:
        self.n_points = 0
        self._steps: list[int] = []
        self._times: list[float] = []
        self._means: list[list[float]] = [[] for _ in self._keys]
        self._rates: list[list[float]] = [[] for _ in self._optimizer.param_groups]
        self._singles: dict[str, tuple[list[int], list[float], list[float]]] = {}

    def add(self, step: int, *observed: float, share: float = 1.0) -> None:
        """One training step: loss, then accuracy and gradient norm where they are recorded.

        `share` is the number of its samples over the batch size: less than 1 for an epoch's smaller last batch.
        """
        for index, value in enumerate(observed):
            self._sums[index] += value if self._keys[index] == "grad_norm" else value * share
        self._single = observed if self._count == 0 else None
        self._count += 1
        self._weight += share
        if step % self._log_every == 0:
            self.close_window(step)

    def close_window(self, step: int) -> None:
        """Make the point of the open window, which may be shorter at the end of a run."""
        if self._count == 0:
            return
        self._steps.append(step)
        self._times.append(perf_counter() - self._started)
        for index, means in enumerate(self._means):
            means.append(self._mean(index))
            self._sums[index] = 0.0
        for group, rates in zip(self._optimizer.param_groups, self._rates, strict=True):
            rates.append(group["lr"])
        self._count, self._weight, self._single = 0, 0.0, None
        self.n_points += len(self._means) + len(self._rates)

    def _mean(self, index: int) -> float:
        """Of one step it is the value itself: weighting it could round its last bit."""
        if self._single is not None:
            return self._single[index]
        return self._sums[index] / (self._count if self._keys[index] == "grad_norm" else self._weight)

    def add_evaluation(self, step: int, values: dict[str, float]) -> None:
        """One evaluation's values, by metric key; the best finite one is kept in the summary."""
        self._add_singles(step, values)
        for key, value in values.items():
            best = self._summary["best"].get(key)
            if isfinite(value) and (best is None or better(key, value, best["value"])):
                self._summary["best"][key] = {"value": value, "step": step}

    def add_telemetry(self, step: int, values: dict[str, float]) -> None:
        """What the optimizer did in one step, by metric key; the best of it is no news."""
        self._add_singles(step, values)

    def _add_singles(self, step: int, values: dict[str, float]) -> None:
        now = perf_counter() - self._started
        for key, value in values.items():
            steps, times, column = self._singles.setdefault(key, ([], [], []))
            steps.append(step)
            times.append(now)
            column.append(value)
        self.n_points += len(values)

    def take(self) -> Metrics | None:
        """All points since the last time, or None where there are none."""
        if self.n_points == 0:
            return None
        times = [round(time, 6) for time in self._times]
        columns: dict[str, dict[str, list[Any]]] = {
            key: {"steps": self._steps, "times": times, "values": values}
            for key, values in (*zip(self._keys, self._means, strict=True), *self._rate_columns())
            if values
        }
        for key, (steps, at, values) in self._singles.items():
            columns[key] = {"steps": steps, "times": [round(time, 6) for time in at], "values": values}
        for key, column in columns.items():
            value = column["values"][-1]
            self._summary["last"][key] = value
        first = min(column["steps"][0] for column in columns.values())
        last = max(column["steps"][-1] for column in columns.values())
        self._clear()
        return Metrics(first, last, columns, self.summary())

    def _rate_columns(self) -> list[tuple[str, list[float]]]:
        groups = self._optimizer.param_groups
        return [(f"lr{group['metric_suffix']}", rates) for group, rates in zip(groups, self._rates, strict=True)]

    def summary(self) -> Summary:
        """A copy of the last values taken and the best evaluations so far."""
        return {"last": dict(self._summary["last"]), "best": dict(self._summary["best"])}

    def state(self) -> dict[str, Any]:
        """The open window and the summary, as JSON. Take all points before."""
        sums = dict(zip(self._keys, self._sums, strict=True))
        return {"sums": sums, "count": self._count, "weight": self._weight, "summary": self.summary()}

    def restore(self, state: dict[str, Any]) -> None:
        self._sums = [state["sums"][key] for key in self._keys]
        self._count = state["count"]
        self._weight = state.get("weight", float(self._count))  # an older release's checkpoint: steps weighed the same
        self._single = None
        self._summary = state["summary"]
