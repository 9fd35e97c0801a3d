"""Contenders in turns, for `bench.optim`: every figure is a median over rounds in which all of them ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from statistics import median

import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Turns:
    """How long to measure: batches of about `batch_seconds`, up to `rounds` of them, until `seconds` are over."""

    rounds: int
    batch_seconds: float
    seconds: float
    min_rounds: int
    device: str

    def interleave(self, runs: dict[str, Run], threads: str) -> dict[str, float]:
        """Median seconds of a call of each: a batch of each per round, the order rotated and turned round each time."""
        if threads != "cuda":
            torch.set_num_threads(int(threads))
        calls = {name: self._calls(run) for name, run in runs.items()}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        names, began = list(runs), time.perf_counter()
        for number in range(self.rounds):
            if number >= self.min_rounds and time.perf_counter() - began > self.seconds:
                break
            for name in names if number % 2 else reversed(names):
                seconds[name].append(self._timed(runs[name], calls[name]))
            names.append(names.pop(0))
        return {name: median(values) for name, values in seconds.items()}

    def _calls(self, run: Run) -> int:
        """How many calls make a batch, by the fastest of three tries that warm up, one where it is slow."""
        seconds = self._timed(run, 1)
        for _ in range(2):
            if seconds < 10 * self.batch_seconds:
                seconds = min(seconds, self._timed(run, max(1, int(self.batch_seconds / seconds / 4))))
        return max(1, round(self.batch_seconds / seconds))

    def _timed(self, run: Run, calls: int) -> float:
        """Seconds of one call of `calls` in a row."""
        self._wait()
        began = time.perf_counter()
        for _ in repeat(None, calls):
            run()
        self._wait()
        return (time.perf_counter() - began) / calls

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


class Streams:
    """Passes over memory far beyond the caches, one of them the fastest: what the machine can move, at that time.

    On a CPU in place, as an optimizer: as many reads as writes, and two reads to a write, as SGD; on a GPU a copy.
    """

    def __init__(self, device: str) -> None:
        n = 250_000_000 if device == "cuda" else 50_000_000
        target, source = torch.ones(n, device=device), torch.ones(n, device=device)
        if device == "cuda":
            self.runs: dict[str, Run] = {"copy": lambda: target.copy_(source)}
        else:
            self.runs = {"scale": lambda: target.mul_(1.0), "add": lambda: target.add_(source, alpha=1e-9)}
        self.n_bytes = {"copy": 8 * n, "scale": 8 * n, "add": 12 * n}

    def bytes_per_second(self, seconds: dict[str, float]) -> float:
        """From the seconds of a pass of each of `runs`."""
        return max(self.n_bytes[name] / seconds[name] for name in self.runs)
