"""API keys, for operators: `traind keys create`, `ls` and `revoke`.

A service of `traind up` makes its own key. Registered by `local.commands`; what a command needs it imports itself.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from local.administration import transaction
from local.options import DataDir

keys = typer.Typer(
    help="API keys of the database at TRAIND_DATABASE_URL, else of the service that runs in the data folder.",
    no_args_is_help=True,
)
ProjectOption = Annotated[str, typer.Option("--project", help="Name of the project that the keys belong to.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people who read the list of keys.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read, write (may also read) or admin (may do everything); may be repeated. Default: write.",
        ),
    ] = None,
    project: ProjectOption = "default",
    data_dir: DataDir = None,
) -> None:
    """Make a key for a project and print it. It cannot be shown again."""
    from jobs import projects
    from jobs.keys import create as make

    with transaction(data_dir) as conn:
        typer.echo(make(conn, projects.find(conn, project), name=name, scopes=scope or ("read", "write")))
        sys.stdout.flush()  # a key that could not be shown is not made


@keys.command()
def ls(*, project: ProjectOption = "default", data_dir: DataDir = None) -> None:
    """List a project's keys: id, name, scopes, when made, when revoked. The keys themselves are not kept."""
    from jobs import projects
    from jobs.keys import list_keys
    from traind.cli.output import when

    with transaction(data_dir) as conn:
        for row in list_keys(conn, projects.find(conn, project)):
            revoked = f"revoked {when(row.revoked_at)}" if row.revoked_at else ""
            line = (str(row.id), row.name, ",".join(row.scopes), when(row.created_at), revoked)
            typer.echo("\t".join(line).rstrip())


@keys.command()
def revoke(
    key_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="The key's id, as `traind keys ls` shows it.")
    ],
    *,
    project: ProjectOption = "default",
    data_dir: DataDir = None,
) -> None:
    """Refuse a key from now on. An api process that has just seen it accepts it for up to 5 seconds more."""
    from jobs import projects
    from jobs.keys import revoke as end

    with transaction(data_dir) as conn:
        end(conn, projects.find(conn, project), key_id)
