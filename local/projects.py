"""Projects, for operators: `traind projects create` and `ls`. Registered by `local.commands`."""

from __future__ import annotations

from typing import Annotated

import typer

from local.administration import transaction
from local.options import DataDir

projects = typer.Typer(
    help="Projects of the database at TRAIND_DATABASE_URL, else of the service that runs in the data folder.",
    no_args_is_help=True,
)


@projects.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the project; it must be unique.")],
    *,
    data_dir: DataDir = None,
) -> None:
    """Create a project. `traind keys create NAME --project PROJECT` then creates a key for it."""
    from jobs.projects import create as make

    with transaction(data_dir) as conn:
        make(conn, name)
    typer.echo(f"project {name.strip()!r} is there; make a key for it with `traind keys create --project`", err=True)


@projects.command()
def ls(*, data_dir: DataDir = None) -> None:
    """List the projects: id, name, number of valid keys, time of creation."""
    from jobs.projects import list_projects
    from traind.cli.output import when

    with transaction(data_dir) as conn:
        for row in list_projects(conn):
            typer.echo(f"{row.id}\t{row.name}\t{row.n_keys} keys\t{when(row.created_at)}")
