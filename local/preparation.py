"""What comes before any process of ours runs: settings read and the database migrated, with errors for people."""

from __future__ import annotations

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jobs.database import upgrade
from jobs.settings import Settings
from local.errors import DatabaseUnusable, InvalidSettings


def settings() -> Settings:
    """The settings of the environment. Raises InvalidSettings, which names the variables, without their values."""
    try:
        return Settings()
    except ValidationError as error:
        problems = [f"TRAIND_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise InvalidSettings("; ".join(problems)) from None


def migrate(url: str) -> None:
    """Bring the database to this version's schema. Raises DatabaseUnusable, without the URL's password."""
    try:
        upgrade(url)
    except (SQLAlchemyError, ValueError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        raise DatabaseUnusable(f"the database (TRAIND_DATABASE_URL) can't be migrated: {reason}") from error
