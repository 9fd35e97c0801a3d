"""API keys, for operators: `traind keys create`, `ls` and `revoke`.

A service of `traind up` creates its own key. Registered by `local.commands`; each command imports what it needs.
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
    name: Annotated[str, typer.Argument(help="Name of the key, such as its owner; `traind keys ls` shows it.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read, write (includes read) or admin (everything); repeat it for more scopes (default: write).",
        ),
    ] = None,
    project: ProjectOption = "default",
    data_dir: DataDir = None,
) -> None:
    """Create a key for a project and print it. The key cannot be shown again."""
    from jobs import projects
    from jobs.keys import create as make

    with transaction(data_dir) as conn:
        typer.echo(make(conn, projects.find(conn, project), name=name, scopes=scope or ("read", "write")))
        sys.stdout.flush()  # a key that could not be shown is not made


@keys.command()
def ls(*, project: ProjectOption = "default", data_dir: DataDir = None) -> None:
    """List a project's keys: id, name, scopes, times of creation and revocation. The keys themselves are not stored."""
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
        int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="Id of the key, as `traind keys ls` shows it.")
    ],
    *,
    project: ProjectOption = "default",
    data_dir: DataDir = None,
) -> None:
    """Revoke a key. An api process that has just verified it accepts it for up to 5 more seconds."""
    from jobs import projects
    from jobs.keys import revoke as end

    with transaction(data_dir) as conn:
        end(conn, projects.find(conn, project), key_id)
