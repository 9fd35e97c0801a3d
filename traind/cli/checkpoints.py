"""`traind checkpoints` and `traind download`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from traind.cli import output
from traind.cli.connection import DataDir, JobArgument, connect, job_id
from traind.cli.errors import CliError, Refused
from traind.cli.jobs import FormatOption
from traind.cli.output import Format, when
from traind.cli.table import short_id

if TYPE_CHECKING:
    from traind.client import Checkpoint, Client

HEADERS = ("id", "step", "attempt", "kind", "complete", "model", "state", "created")


class NoCheckpoint(CliError):
    """The job has no such checkpoint."""

    code = "no-checkpoint"


def register(app: typer.Typer) -> None:
    app.command()(checkpoints)
    app.command()(download)


def checkpoints(job: JobArgument, *, output_format: FormatOption = Format.TABLE, data_dir: DataDir = None) -> None:
    """List a job's checkpoints by step."""
    with connect(data_dir) as client:
        found = client.checkpoints(job_id(client, job))
    if output_format is Format.JSON:
        output.document([checkpoint.document() for checkpoint in found])
        return
    rows = [
        (
            c.id,
            c.step,
            c.attempt,
            c.kind,
            c.complete,
            *map(output.size, (c.model.size, c.state.size)),
            when(c.created_at),
        )
        for c in found
    ]
    output.table(HEADERS, rows, right=(0, 1, 2, 5, 6), spare=(2, 4, 6))


def download(
    job: JobArgument,
    *,
    step: Annotated[int | None, typer.Option(help="Step of the checkpoint (default: the newest).")] = None,
    path: Annotated[Path | None, typer.Option("--to", "-o", help="File or folder to write to.")] = None,
    part: Annotated[
        Literal["model", "state"], typer.Option(help="model: the weights; state: everything else that a resume needs.")
    ] = "model",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Download a checkpoint as a safetensors file, verified by its SHA-256, and print the file's path.

    `safetensors.torch.load_file` reads it into `model.load_state_dict`.
    """
    with connect(data_dir) as client:
        whole_id = job_id(client, job)
        checkpoint = choose(client.checkpoints(whole_id), step)
        target = _target(
            path, f"{short_id(whole_id)}-step-{checkpoint.step}{'' if part == 'model' else '-state'}.safetensors"
        )
        if os.path.lexists(target) and not force:
            raise Refused(f"{target} is there already; --force replaces it")
        _fetch(client, checkpoint, target, part)
    output.data(str(target))


def choose(found: tuple[Checkpoint, ...], step: int | None) -> Checkpoint:
    """The complete checkpoint of that step, or the newest one. Raises NoCheckpoint."""
    complete = [checkpoint for checkpoint in found if checkpoint.complete]
    if not complete:
        raise NoCheckpoint("the job has no complete checkpoint yet; `traind watch` shows how far it is")
    matching = [checkpoint for checkpoint in complete if step in (None, checkpoint.step)]
    if not matching:
        steps = ", ".join(str(checkpoint.step) for checkpoint in complete[-10:])
        raise NoCheckpoint(f"the job has no checkpoint of step {step}; it has {steps}")
    return matching[-1]


def _target(path: Path | None, name: str) -> Path:
    if path is None:
        return Path(name)
    if os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises an error for a name that is too long
        return path / name
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise Refused(f"{path.parent} is not a folder; make it first")
    return path


def _fetch(client: Client, checkpoint: Checkpoint, target: Path, part: Literal["model", "state"]) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = output.stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        try:
            client.download(
                checkpoint.id,
                target,
                part=part,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        except OSError as e:
            raise CliError(f"{target} cannot be written: {e.strerror}") from None
