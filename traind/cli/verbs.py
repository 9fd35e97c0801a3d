"""`traind cancel`, `pause`, `resume` and `retry` for jobs; `cancel` also for checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from traind.cli import output, selection
from traind.cli.confirmation import confirm
from traind.cli.connection import DataDir, connect, job_id
from traind.cli.errors import FAILED, Refused
from traind.cli.job_table import job_table
from traind.cli.jobs import FormatOption
from traind.cli.output import Format
from traind.errors import ApiError

if TYPE_CHECKING:
    from traind.client import Check, Client, Job

JobsArgument = Annotated[
    list[str], typer.Argument(metavar="JOB...", help="Ids of jobs, or their last four digits or more.")
]
CancelArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB|CHECK]...", help="Ids of jobs, or their last four digits or more; full ids of checks."
    ),
]
NOT_ENDED = ("queued", "running", "pausing", "paused")
OF_ONE = ("not-found", "state-conflict", "no-answer")
"""Codes of errors that concern only the job that was asked."""


class Start(StrEnum):
    CHECKPOINT = "checkpoint"
    START = "start"


def register(app: typer.Typer) -> None:
    for command in (cancel, pause, resume, retry):
        app.command()(command)


def cancel(
    jobs: CancelArgument = None,
    *,
    label: selection.LabelOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --label: do not ask for confirmation.")] = False,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Cancel jobs or checks. A running job shows `cancelling` until its worker has stopped it.

    With --label, cancel all jobs with this label that have not ended, after asking for confirmation.
    """
    if not label:
        return _ask(jobs or (), _cancel, output_format, data_dir)
    from traind.cli.watch import chosen

    with connect(data_dir) as client:
        idents = chosen(client, (), label, state=NOT_ENDED)
    if not idents and not jobs:
        output.note(f"no job with the label {' '.join(label)} is left to cancel")
        return None
    if idents:
        confirm("Cancel", "job", idents, yes=yes)
    return _ask([*(jobs or ()), *idents], _cancel, output_format, data_dir)


def pause(jobs: JobsArgument, *, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """Pause jobs. A running job shows `pausing` until its checkpoint is complete."""
    _ask(jobs, lambda client, job: client.pause(job), output_format, data_dir)


def resume(jobs: JobsArgument, *, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """Resume paused jobs."""
    _ask(jobs, lambda client, job: client.resume(job), output_format, data_dir)


def retry(
    jobs: JobsArgument,
    *,
    start: Annotated[
        Start,
        typer.Option("--from", help="checkpoint: continue from the last one; start: train again from the beginning."),
    ] = Start.CHECKPOINT,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Retry failed or cancelled jobs, from the last checkpoint or from the start."""
    _ask(jobs, lambda client, job: client.retry(job, start=start.value), output_format, data_dir)


def _cancel(client: Client, ident: str) -> Job | Check:
    for verb in (client.cancel, client.cancel_check):
        try:
            return verb(ident)
        except ApiError as e:
            if e.code != "not-found":
                raise
    raise ApiError(
        "not-found",
        f"there is no job or check {ident}; `traind ls` lists the jobs, `traind checks JOB` the checks of one",
    )


def _ask(
    jobs: Sequence[str], verb: Callable[[Client, str], Job | Check], output_format: Format, data_dir: Path | None
) -> None:
    """Call `verb` for each job, and show the jobs that obeyed, in their new state, even if an error ends the loop."""
    if not jobs:
        raise Refused("give ids of jobs, or --label KEY=VALUE")
    obeyed: list[Job | Check] = []
    with connect(data_dir) as client:
        idents = [job_id(client, job) for job in jobs]
        try:
            for ident in idents:
                obeyed += _ask_one(client, ident, verb)
        finally:
            _show(obeyed, output_format)
    if len(obeyed) < len(idents):
        raise typer.Exit(FAILED)


def _ask_one(client: Client, ident: str, verb: Callable[[Client, str], Job | Check]) -> list[Job | Check]:
    """The job in its new state, or an empty list if the call was refused; stderr says why."""
    try:
        return [verb(client, ident)]
    except ApiError as e:
        if e.code not in OF_ONE:
            raise
        output.note(f"traind: {e}" if ident in str(e) else f"traind: {ident}: {e}")
        return []


def _show(obeyed: Sequence[Job | Check], output_format: Format) -> None:
    from traind.client import Check, Job

    if obeyed and output_format is Format.JSON:
        output.document([one.document() for one in obeyed])
        return
    if jobs := [one.document() for one in obeyed if isinstance(one, Job)]:
        job_table(jobs)
    if checks := [one for one in obeyed if isinstance(one, Check)]:
        from traind.cli.checks import check_table

        check_table(checks)
