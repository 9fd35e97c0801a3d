"""What comes before any process of ours runs: the database migrated, with errors for people."""

from __future__ import annotations

from alembic.util.exc import CommandError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jobs.database import upgrade
from local.errors import DatabaseUnusable


def migrate(url: str) -> None:
    """Bring the database to this version's schema. Raises DatabaseUnusable, without the URL's password."""
    try:
        upgrade(url)
    except (SQLAlchemyError, CommandError, ValueError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        raise DatabaseUnusable(f"the database (TRAIND_DATABASE_URL) can't be migrated: {reason}") from error
