"""`traind watch`: shows jobs until they end. The exit code is the worst outcome (traind.cli.errors.OUTCOMES)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from traind.cli import output, selection
from traind.cli.connection import DataDir, connect, job_id, silence
from traind.cli.errors import INTERRUPTED, OUTCOMES, Refused
from traind.cli.job_table import early_stop, job_table

if TYPE_CHECKING:
    from traind.client import Client, Job

WORST_FIRST = ("failed", "diverged", "cancelled", "succeeded")


def register(app: typer.Typer) -> None:
    app.command()(watch)


def watch(
    jobs: Annotated[
        list[str] | None, typer.Argument(metavar="[JOB]...", help="Ids of jobs, or their last four digits or more.")
    ] = None,
    *,
    label: selection.LabelOption = None,
    output_format: Annotated[
        output.Format, typer.Option("--output", "-o", help="Output format; json is one JSON document.")
    ] = output.Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Watch jobs until all have ended. The exit code says the outcome, or the worst outcome of several jobs.

    Exit codes from best to worst: 0 succeeded, 4 cancelled, 3 diverged, 1 failed (or watching failed). 130 means that
    watching was interrupted; the jobs continue. --label selects the jobs that have the label now, including those that
    have ended. Progress goes to stderr and the finished jobs to stdout; with -o json, as one object, or as an array if
    there are several ids or a label.
    """
    with connect(data_dir) as client:
        idents = chosen(client, jobs or (), label or ())
        raise typer.Exit(watch_jobs(client, idents, output_format, array=len(jobs or ()) > 1 or bool(label)))


def chosen(client: Client, jobs: Sequence[str], label: Sequence[str], *, state: Sequence[str] = ()) -> list[str]:
    """The full ids of the jobs, and of the jobs with the labels in one of the states. Raises Refused, UnknownJob."""
    if not jobs and not label:
        raise Refused("give ids of jobs, or --label KEY=VALUE")
    idents = [job_id(client, job) for job in jobs]
    if label:
        found = [job.id for job in client.list(labels=selection.labels(label), state=state)]
        if not found and not state:
            raise Refused(f"no job has the label {' '.join(label)}; `traind ls` lists the jobs")
        idents += reversed(found)
    return list(dict.fromkeys(idents))


def watch_jobs(client: Client, idents: Sequence[str], output_format: output.Format, *, array: bool = False) -> int:
    """Watch the jobs until all have ended, and print them; JSON is one object or an array. Returns the exit code."""
    from traind.cli.live import Board

    try:
        with Board(output.stderr(), several=len(idents) > 1) as board:
            jobs = client.wait_all(idents, board.update, on_silence=silence(client))
    except KeyboardInterrupt:
        whole_id = idents[0] if len(idents) == 1 else "JOB..."
        goes = "the job goes" if len(idents) == 1 else "the jobs go"
        output.note(f"{goes} on; `traind watch {whole_id}` comes back to it, `traind cancel {whole_id}` ends it")
        return INTERRUPTED
    for job in jobs:
        _explain(job, named=len(jobs) > 1)
    documents = [job.document() for job in jobs]
    if output_format is output.Format.JSON:
        output.document(documents if array else documents[0])
    else:
        job_table(documents)
    return OUTCOMES[min((job.state for job in jobs), key=WORST_FIRST.index)]


def _explain(job: Job, *, named: bool) -> None:
    """Why the job ended as it did, if that needs an explanation."""
    whose = f"{job.id}: " if named else ""
    if job.error is not None:
        output.note(f"{whose}{job.state}: {job.error.message} ({job.error.code})")
    if job.stopped_early:
        output.note(f"{whose}stopped early {early_stop(job.document())}")
