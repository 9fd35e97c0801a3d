"""`traind compare`: jobs that differ only in their seed as one row, with mean and spread of a metric."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import typer

from traind.cli import output, selection
from traind.cli.connection import DataDir, plain
from traind.cli.differences import SEED, Settings, differing, settings, titles
from traind.cli.job_table import (
    Document,
    bad_answer,
    best_value,
    better_is_higher,
    last_number,
    main_metric,
    note_unknown,
)
from traind.cli.jobs import FormatOption
from traind.cli.output import Format, number

MOST_COMPARED = 1_000
ALWAYS = ("optimizer.name", "optimizer.lr")
ENDED_BADLY = ("diverged", "failed", "cancelled")
MOMENTS = ("mean", "std", "min", "max")


@dataclass(frozen=True)
class Spread:
    """Statistics of `n` values, at least one. `std` is the sample standard deviation (n - 1), None for one value."""

    n: int
    mean: float
    std: float | None
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """The statistics of the values that exist and are finite; None if there are none."""
        found = [value for value in values if value is not None and math.isfinite(value)]
        if not found:
            return None
        std = statistics.stdev(found) if len(found) > 1 else None
        return cls(len(found), statistics.fmean(found), std, min(found), max(found))

    def cells(self) -> tuple[str, ...]:
        return tuple(number(getattr(self, name)) for name in MOMENTS)


@dataclass(frozen=True)
class Group:
    """Jobs that differ only in their seed. `best` and `last` cover the jobs that succeeded."""

    settings: Settings
    jobs: Sequence[Document]
    best: Spread | None
    last: Spread | None

    @property
    def states(self) -> Counter[str]:
        """The number of jobs by outcome; jobs that have not ended, including paused ones, are "running"."""
        ended = ("succeeded", *ENDED_BADLY)
        return Counter(job["state"] if job["state"] in ended else "running" for job in self.jobs)


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    *,
    label: selection.LabelOption = None,
    optimizer: Annotated[str | None, typer.Option(help="Only jobs with this optimizer.")] = None,
    name: selection.NameOption = None,
    since: selection.SinceOption = None,
    until: selection.UntilOption = None,
    by: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Metric to compare (default: val/accuracy, else val/loss).")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help=f"Compare all matching jobs (default: the newest {MOST_COMPARED:,}).")
    ] = False,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Compare jobs. Jobs that differ only in their seed share a row; the best mean comes first.

    The mean, sample standard deviation (n - 1), minimum and maximum of the metric's best and last value cover the jobs
    that succeeded. Further columns count the jobs that diverged, failed, were cancelled or are still running.
    """
    from traind.client import calls

    wanted = selection.filters(label=label, optimizer=optimizer, name=name, since=since, until=until)
    with plain(data_dir) as http:
        found = calls.list_jobs(http, **wanted)
        jobs = list(found if everything else islice(found, MOST_COMPARED))
        more = not everything and len(jobs) == MOST_COMPARED and next(found, None) is not None
    if more:
        output.note(f"compared are the newest {MOST_COMPARED:,} that match; --all compares all of them")
    try:
        key = by or main_metric(jobs)
        note_unknown(jobs, key)
        groups = grouped(jobs, key)
        if output_format is Format.JSON:
            output.document([_document(group, key) for group in groups])
        else:
            _table(groups, key)
    except (AttributeError, KeyError, TypeError):
        raise bad_answer() from None


def grouped(jobs: Sequence[Document], key: str) -> list[Group]:
    """The groups, sorted by the mean of the metric's best value, best first; groups without a value come last."""
    members: dict[tuple[tuple[str, str], ...], list[Document]] = {}
    for job in jobs:
        own = settings(job["spec"])
        own.pop(SEED, None)
        members.setdefault(tuple(sorted(own.items())), []).append(job)
    groups = [_group(dict(shared), each, key) for shared, each in members.items()]
    sign = -1 if better_is_higher(key) else 1
    return sorted(groups, key=lambda group: math.inf if (b := group.best or group.last) is None else sign * b.mean)


def _group(shared: Settings, jobs: Sequence[Document], key: str) -> Group:
    good = [job for job in jobs if job["state"] == "succeeded"]
    best = Spread.of([best_value(job, key) for job in good])
    return Group(shared, jobs, best, Spread.of([last_number(job, key) for job in good]))


def _table(groups: Sequence[Group], key: str) -> None:
    rows = [group.settings for group in groups]
    paths = list(dict.fromkeys((*ALWAYS, *differing(rows))))
    counts = (*ENDED_BADLY, "running")
    headers = (*titles(paths), "n", "best mean", *MOMENTS[1:], "last mean", *MOMENTS[1:], *counts)
    cells = [
        (
            *(group.settings.get(path) for path in paths),
            group.states["succeeded"],
            *(group.best.cells() if group.best else [""] * 4),
            *(group.last.cells() if group.last else [""] * 4),
            *(group.states[state] or "" for state in counts),
        )
        for group in groups
    ]
    n = len(paths)
    spare = [n + 7, n + 8, n + 11, n + 6, n + 3, n + 4, n + 5, *range(n - 1, 1, -1)]
    output.table(headers, cells, right=range(n, len(headers)), spare=spare)
    output.note(f"{key} of the n jobs that succeeded, best and last value; std is the sample's (n - 1)")
    if repeated := sum(map(_repeated, groups)):
        output.note(f"{repeated} jobs repeat a seed of their row and count like the others")


def _seeds(group: Group) -> list[Any]:
    return [job["spec"].get("training", {}).get("seed") for job in group.jobs]


def _repeated(group: Group) -> int:
    return len(group.jobs) - len(set(_seeds(group)))


def _document(group: Group, key: str) -> dict[str, Any]:
    counts: Mapping[str, int] = group.states
    return {
        "settings": group.settings,
        "metric": key,
        "best": None if group.best is None else vars(group.best),
        "last": None if group.last is None else vars(group.last),
        "states": dict(counts),
        "seeds": _seeds(group),
        "jobs": [job["id"] for job in group.jobs],
    }
