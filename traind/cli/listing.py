"""`traind ls`: the jobs that match, with the hyperparameters that differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from traind.cli import output, selection
from traind.cli.connection import DataDir, plain
from traind.cli.job_table import (
    Document,
    bad_answer,
    best_value,
    better_is_higher,
    job_table,
    last_number,
    note_unknown,
)
from traind.cli.jobs import FormatOption
from traind.cli.output import Format

CREATED = "created"
MOST_SORTED = 1_000
"""How many jobs are fetched at most to be sorted by a metric, without --all."""


def register(app: typer.Typer) -> None:
    app.command("ls")(list_jobs)


def list_jobs(
    *,
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state; repeat the option for several states.")
    ] = None,
    label: selection.LabelOption = None,
    optimizer: Annotated[str | None, typer.Option(help="Only jobs with this optimizer.")] = None,
    name: selection.NameOption = None,
    since: selection.SinceOption = None,
    until: selection.UntilOption = None,
    where: selection.WhereOption = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="METRIC", help="Sort by the best value of this metric, e.g. val/accuracy (default: newest first)."
        ),
    ] = CREATED,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of jobs to list.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all matching jobs, without a limit.")] = False,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """List jobs, newest first, with the last and the best value of a metric and the hyperparameters that differ."""
    from traind.client import calls

    wanted = selection.filters(
        state=state, label=label, optimizer=optimizer, name=name, since=since, until=until, where=where
    )
    with plain(data_dir) as http:
        if by == CREATED:
            found = calls.list_jobs(http, **wanted, page=min(limit, calls.MOST_JOBS_PER_PAGE))
            jobs = list(found if everything else islice(found, limit))
        else:
            jobs = _sorted(calls.list_jobs(http, **wanted), by, None if everything else limit)
    if output_format is Format.JSON:
        output.document(jobs)
    else:
        _show(jobs, None if by == CREATED else by)


def _sorted(found: Iterator[Any], key: str, limit: int | None) -> list[Any]:
    """The best `limit` jobs by a metric, of at most MOST_SORTED; stderr says if there are more."""
    jobs = list(found if limit is None else islice(found, MOST_SORTED))
    more = limit is not None and len(jobs) == MOST_SORTED and next(found, None) is not None
    try:
        note_unknown(jobs, key)
        ranked = by_metric(jobs, key)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise bad_answer() from None
    if more:
        output.note(f"only the newest {MOST_SORTED:,} matching jobs are sorted; --all sorts all of them")
    if limit is not None and len(jobs) > limit:
        output.note(f"the best {limit} of {len(jobs):,}; -n shows more")
    return ranked[:limit]


def by_metric(jobs: Sequence[Document], key: str) -> list[Document]:
    """Jobs sorted by the metric's best value, or its last if no best is kept; jobs without a number come last."""
    sign = -1 if better_is_higher(key) else 1

    def place(job: Document) -> float:
        value = best_value(job, key)
        value = last_number(job, key) if value is None else value
        return math.inf if value is None else sign * value

    return sorted(jobs, key=place)


def _show(jobs: Sequence[Any], metric: str | None) -> None:
    try:
        job_table(jobs, metric=metric)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise bad_answer() from None
