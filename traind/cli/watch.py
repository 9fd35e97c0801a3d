"""`traind watch`: a job until its end. The exit code is the outcome (traind.cli.errors.OUTCOMES)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from traind.cli import output
from traind.cli.connection import DataDir, JobArgument, connect, job_id, silence
from traind.cli.errors import INTERRUPTED, OUTCOMES
from traind.cli.job_table import early_stop, job_table

if TYPE_CHECKING:
    from traind.client import Client


def register(app: typer.Typer) -> None:
    app.command()(watch)


def watch(
    job: JobArgument,
    *,
    output_format: Annotated[output.Format, typer.Option("--output", "-o")] = output.Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Watch a job until it ends; the exit code is its outcome.

    0 succeeded, 1 failed (or watching failed), 3 diverged, 4 cancelled, 130 interrupted: the job itself goes on.
    Progress goes to stderr, the finished job to stdout.
    """
    with connect(data_dir) as client:
        raise typer.Exit(watch_job(client, job_id(client, job), output_format))


def watch_job(client: Client, whole_id: str, output_format: output.Format) -> int:
    """Watch the job, print it when it has ended, and return the exit code."""
    from traind.cli.live import Board

    try:
        with Board(output.stderr()) as board:
            job = client.wait(whole_id, board.update, on_silence=silence(client))
    except KeyboardInterrupt:
        output.note(f"the job goes on; `traind watch {whole_id}` comes back to it, `traind cancel {whole_id}` ends it")
        return INTERRUPTED
    if job.error is not None:
        output.note(f"{job.state}: {job.error.message} ({job.error.code})")
    if job.stopped_early:
        output.note(f"stopped early {early_stop(job.document())}")
    if output_format is output.Format.JSON:
        output.document(job.document())
    else:
        job_table([job.document()])
    return OUTCOMES[job.state]
