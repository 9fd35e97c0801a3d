"""`traind workers`: the workers and the jobs that each holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from traind.cli import output
from traind.cli.connection import DataDir, connect
from traind.cli.jobs import FormatOption
from traind.cli.output import Format, duration, number
from traind.cli.table import Ident

if TYPE_CHECKING:
    from traind.client import HeldJob, Worker

HEADERS = (
    *("id", "name", "state", "device", "queues", "memory", "traind", "seen ago"),
    *("job", "attempt", "phase", "step", "steps/s", "lease left"),
)
NUMBERS = (5, 7, 9, 11, 12, 13)
SPARE = (5, 4, 8, 9, 11, 12, 3)
"""Columns that are dropped on a narrow terminal, in this order."""
BUSY = "(another project's)"


def register(app: typer.Typer) -> None:
    app.command()(workers)


def workers(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also show workers that have stopped.")] = False,
    output_format: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """List the workers: the job that each holds, its progress, and when the worker was last seen."""
    with connect(data_dir) as client:
        found = client.workers(stopped=everything)
    if output_format is Format.JSON:
        output.document([worker.document() for worker in found])
    else:
        output.table(HEADERS, [row for worker in found for row in _rows(worker)], right=NUMBERS, spare=SPARE, cut=(1,))
        for worker in found:
            if worker.state == "ill":
                output.note(f"{worker.name} is ill: {worker.trouble}")
            for dataset, why in worker.lacks.items():
                output.note(f"{worker.name} takes no job of {dataset}: {why}")


def _rows(worker: Worker) -> Iterator[tuple[object, ...]]:
    """A line for each job that the worker holds; one line if it holds none."""
    held: list[tuple[object, ...]] = [_held(job) for job in worker.jobs]
    held += [(BUSY,)] * (worker.busy - len(worker.jobs))
    return ((*_who(worker), *cells) for cells in held or [()])


def _who(worker: Worker) -> tuple[object, ...]:
    memory = "" if worker.memory_bytes is None else f"{worker.memory_bytes / 1e9:.1f} GB"
    serves = (worker.device, ",".join(worker.queues), memory, worker.versions.get("traind"))
    return (Ident(worker.id), worker.name, worker.state, *serves, duration(worker.seen_seconds))


def _held(job: HeldJob) -> tuple[object, ...]:
    step = f"{job.step}/{job.total_steps}"
    left = "ran out" if job.lease_left_seconds <= 0 else duration(job.lease_left_seconds)
    shown = Ident(job.id) if job.kind == "train" else f"{job.kind} {job.id}"  # of a check the other commands want all
    return (shown, job.attempt, job.phase, step, number(job.rate_steps_per_second), left)
