"""`traind cancel`, `pause`, `resume` and `retry`: what can be asked of jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from traind.cli import output
from traind.cli.connection import DataDir, connect, job_id
from traind.cli.jobs import FormatOption, job_table
from traind.cli.output import Format

if TYPE_CHECKING:
    from traind.client import Client, Job

JobsArgument = Annotated[
    list[str], typer.Argument(metavar="JOB...", help="Ids, or their first four characters or more.")
]


class Start(StrEnum):
    CHECKPOINT = "checkpoint"
    START = "start"


def register(app: typer.Typer) -> None:
    for command in (cancel, pause, resume, retry):
        app.command()(command)


def cancel(jobs: JobsArgument, *, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """Cancel jobs. A running one shows `cancelling` until its worker has stopped it."""
    _ask(jobs, lambda client, job: client.cancel(job), output_format, data_dir)


def pause(jobs: JobsArgument, *, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """Pause jobs. A running one shows `pausing` until its checkpoint is complete."""
    _ask(jobs, lambda client, job: client.pause(job), output_format, data_dir)


def resume(jobs: JobsArgument, *, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """Let paused jobs go on."""
    _ask(jobs, lambda client, job: client.resume(job), output_format, data_dir)


def retry(
    jobs: JobsArgument,
    *,
    start: Annotated[
        Start, typer.Option("--from", help="start: over again, without what was trained before.")
    ] = Start.CHECKPOINT,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Try failed or cancelled jobs again, from the last checkpoint or from the start."""
    _ask(jobs, lambda client, job: client.retry(job, start=start.value), output_format, data_dir)


def _ask(jobs: Sequence[str], verb: Callable[[Client, str], Job], output_format: Format, data_dir: Path | None) -> None:
    """Ask it of each job, and show them as they are then."""
    with connect(data_dir) as client:
        asked = [verb(client, job_id(client, job)) for job in jobs]
    if output_format is Format.JSON:
        output.document([job.document() for job in asked])
    else:
        job_table(asked)
