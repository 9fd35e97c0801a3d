"""API keys of the database at TRAIND_DATABASE_URL: `traind keys create`, `ls` and `revoke`, for operators.

A service of `traind up` makes its own key. Registered by `local.commands`; what a command needs it imports itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy import Connection

keys = typer.Typer(help="API keys of the database at TRAIND_DATABASE_URL.", no_args_is_help=True)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; people read this.")],
    scope: Annotated[list[str] | None, typer.Option(help="read, write or admin; may be repeated.")] = None,
) -> None:
    """Make a key for the default project and print it: the only time that it is seen."""
    from jobs.keys import create as make
    from local.errors import LocalError

    with _default_project() as (conn, project_id):
        try:
            key = make(conn, project_id, name=name, scopes=scope or ("read", "write"))
        except ValueError as error:
            raise LocalError(str(error)) from None
    typer.echo(key)


@keys.command()
def ls() -> None:
    """List the keys: id, name, scopes, when made, when revoked. The keys themselves are not kept."""
    from jobs.keys import list_keys

    with _default_project() as (conn, project_id):
        for row in list_keys(conn, project_id):
            revoked = f"revoked {row.revoked_at:%Y-%m-%d %H:%M}" if row.revoked_at else ""
            line = (str(row.id), row.name, ",".join(row.scopes), f"{row.created_at:%Y-%m-%d %H:%M}", revoked)
            typer.echo("\t".join(line).rstrip())


@keys.command()
def revoke(key_id: Annotated[int, typer.Argument(metavar="ID", help="As `traind keys ls` shows it.")]) -> None:
    """Refuse a key from now on (an api process may know it for some seconds more)."""
    from jobs.keys import revoke as end

    with _default_project() as (conn, project_id):
        end(conn, project_id, key_id)


@contextmanager
def _default_project() -> Iterator[tuple[Connection, int]]:
    """A transaction on the database at TRAIND_DATABASE_URL, and its default project's id."""
    from sqlalchemy import select
    from sqlalchemy.exc import DBAPIError

    from jobs.database import make_engine
    from jobs.settings import load
    from jobs.tables import project
    from local.errors import DatabaseUnusable, LocalError

    url = load().database_url
    if url is None:
        raise LocalError("set TRAIND_DATABASE_URL; the key of a local service is in its data folder, file api-key")
    try:
        with make_engine(url.get_secret_value(), application_name="traind-keys", pool_size=0).begin() as conn:
            yield conn, conn.execute(select(project.c.id).where(project.c.name == "default")).scalar_one()
    except (DBAPIError, ValueError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]
        raise DatabaseUnusable(
            f"the database (TRAIND_DATABASE_URL): {reason}; `traind db upgrade` migrates it"
        ) from None
