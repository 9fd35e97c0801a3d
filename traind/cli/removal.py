"""`traind rm`: delete jobs that have ended, or checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from traind.cli import output
from traind.cli.confirmation import confirm
from traind.cli.connection import DataDir, connect, job_id
from traind.cli.errors import FAILED
from traind.errors import ApiError

OF_ONE = ("not-found", "state-conflict", "in-use", "no-answer")
"""Codes of errors that concern only the job or checkpoint that was to be deleted."""


def register(app: typer.Typer) -> None:
    app.command()(rm)


def rm(
    things: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB...",
            help="Ids of ended jobs, or their last four digits or more; with --checkpoint, numbers of checkpoints.",
        ),
    ],
    *,
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="Delete checkpoints instead of jobs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Delete jobs that have ended, with their checkpoints and metrics. This cannot be undone."""
    numbers = [_number(thing) for thing in things] if checkpoint else list[int]()
    with connect(data_dir) as client:
        idents: Sequence[int | str] = numbers or [job_id(client, thing) for thing in things]
        confirm(
            "Delete", "checkpoint" if checkpoint else "job", [str(ident) for ident in idents], ", for good", yes=yes
        )
        refused = 0
        for ident in dict.fromkeys(idents):
            try:
                client.delete_checkpoint(ident) if isinstance(ident, int) else client.delete(ident)
                output.note(f"deleted {ident}")
            except ApiError as e:
                if e.code not in OF_ONE:
                    raise
                output.note(f"traind: {e}" if str(ident) in str(e) else f"traind: {ident}: {e}")
                refused += 1
    if refused:
        raise typer.Exit(FAILED)


def _number(thing: str) -> int:
    if thing.isascii() and thing.isdigit() and len(thing) < 20 and 0 < int(thing) < 2**63:
        return int(thing)
    raise typer.BadParameter(f"{thing[:40]!r} is no id of a checkpoint; `traind checkpoints JOB` lists them")
