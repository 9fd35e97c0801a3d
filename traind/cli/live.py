"""The progress of jobs while they run: on a terminal a table that is redrawn, elsewhere an occasional line.

Written to stderr. Used by `traind watch`, `traind submit --watch` and the demo.
"""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from traind.cli.output import STATE_STYLES, duration, number, printable
from traind.cli.table import short_id
from traind.client import Job

BAR_CELLS = 10
COLUMNS = ("job", "state", "", "step", "loss", "accuracy", "steps/s", "ETA")


class Board:
    """Shows the jobs given to `update`. Elsewhere than on a terminal, prints a line for a job at each new state, and in
    between at most every `line_seconds`. With `several` jobs each line begins with a short id.
    """

    def __init__(self, console: Console, *, several: bool = False, line_seconds: float = 2.0) -> None:
        self._console = console
        self._several = several
        self._line_seconds = line_seconds
        self._jobs: dict[str, Job] = {}
        self._said: dict[str, tuple[str, int, float]] = {}
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, job: Job) -> None:
        self._jobs[job.id] = job
        if self._console.is_terminal:
            self._live.update(self._table(), refresh=True)
        else:
            self._line(job)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        for i, header in enumerate(COLUMNS):
            table.add_column(header, justify="right" if i > 2 else "left", no_wrap=True)
        shown = self._fitting()
        names = Counter(job.name for job in shown)
        for job in shown:
            name, state, *numbers = cells(job)
            name = f"{short_id(job.id)} {name}" if job.name and names[job.name] > 1 else name
            table.add_row(name, Text(state, style=STATE_STYLES.get(job.state, "")), bar(job), *numbers)
        if len(shown) < len(self._jobs):
            states = Counter(job.state for job in self._jobs.values())
            table.caption = ", ".join(f"{n:,} {state}" for state, n in states.items())
            table.caption_justify = "left"
        return table

    def _fitting(self) -> list[Job]:
        """As many jobs as fit on the terminal: running jobs come first, ended ones last."""
        room = max(1, self._console.height - 3)
        if len(self._jobs) <= room:
            return list(self._jobs.values())
        return sorted(self._jobs.values(), key=lambda job: (job.final, job.state == "queued"))[:room]

    def _line(self, job: Job) -> None:
        state, step, at = self._said.get(job.id, ("", 0, 0.0))
        now = time.monotonic()
        if job.state_and_reason == state and (job.progress.step == step or now - at < self._line_seconds):
            return
        self._said[job.id] = (job.state_and_reason, job.progress.step, now)
        name, shown, steps, loss, accuracy, rate, eta = cells(job)
        parts = [f"{short_id(job.id)} {name}" if job.name and self._several else name, shown, f"step {steps}"]
        parts += [
            f"{label} {value}" for label, value in (("loss", loss), ("accuracy", accuracy), ("ETA", eta)) if value
        ]
        parts += [f"{rate} steps/s"] if rate else []
        parts += [] if job.waiting_for is None else [printable(job.waiting_for.message)]
        self._console.print("  ".join(parts))


def cells(job: Job) -> tuple[str, str, str, str, str, str, str]:
    """Name, state (for a running job its phase, if it is not training), step, loss, accuracy, steps per second, ETA."""
    progress = job.progress
    busy = job.state == "running" and job.phase not in (None, "train") and progress.no_room is None
    state = job.phase if busy else job.state_and_reason
    rate = progress.rate_steps_per_second
    return (
        printable(job.name or short_id(job.id)),
        state or "",
        f"{progress.step:,}/{progress.total_steps:,}" if progress.total_steps else f"{progress.step:,}",
        last(job, "train/loss", "val/loss"),
        last(job, "val/accuracy", "train/accuracy"),
        "" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}",
        "" if job.final else duration(progress.eta_seconds),
    )


def last(job: Job, *keys: str) -> str:
    """The last value of the first of `keys` that the job has; "nan" or "inf" as it is."""
    for key in keys:
        if key in job.metrics.last:
            value = job.metrics.last[key]
            return job.metrics.nonfinite.get(key, "nan") if value is None else number(value)
    return ""


def bar(job: Job) -> str:
    total = job.progress.total_steps or 0
    full = round(BAR_CELLS * min(1.0, job.progress.step / total)) if total else 0
    return "█" * full + "░" * (BAR_CELLS - full)
