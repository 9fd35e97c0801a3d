"""Runs migrations in one transaction, one process at a time, giving up soon where a lock is not to be had.

`jobs.database.upgrade` hands over its connection; the `alembic` command uses TRAIND_DATABASE_URL.
"""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text

from jobs.database import make_engine
from jobs.settings import InvalidSettings, load
from jobs.tables import metadata
from migrations import ONE_AT_A_TIME


def run(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    context.configure(connection=connection, target_metadata=metadata, compare_type=True, compare_server_default=True)
    context.run_migrations()


def run_from_command_line() -> None:
    try:
        url = load().database_url
    except InvalidSettings as error:
        raise CommandError(str(error)) from None
    if url is None:
        raise CommandError("set TRAIND_DATABASE_URL")
    engine = make_engine(url.get_secret_value(), application_name="traind-migrate", pool_size=0)
    with engine.begin() as connection:
        run(connection)


if context.is_offline_mode():
    raise CommandError("offline mode is not supported: migrations look at the database")
if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    run_from_command_line()
