"""The database: engines, migrations, and which installation this is.

Called by every edge (api, worker, local commands, tests). The URL is a plain `postgresql://…`; psycopg 3 is the
only driver. Sessions that stop inside a transaction (a frozen process) are ended by the server, so that no row
lock outlives a lease.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction
from psycopg.pq import Format
from sqlalchemy import URL, Connection, Engine, ExceptionContext, NullPool, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError, OperationalError

import migrations
from jobs.patience import bound, server_limits
from jobs.tables import meta

IDLE_IN_TRANSACTION_SECONDS = 10
_OURS = r"-c datestyle=ISO -c extra_float_digits=1 -c default_transaction_isolation=read\ committed"
"""What the code takes for granted, whatever the server, its database, the user's role or the URL set."""
API_POOL_SIZE = 16
"""Connections of one api process, at most."""
WORKER_POOL_SIZE = 8
"""Of one worker: slot, pipe, upload, reaper and each kind of housekeeping use one at a time. The heartbeat has one more
of its own.
"""
_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


def make_patient_engine(url: str, *, application_name: str, pool_size: int, patience_seconds: float) -> Engine:
    """An engine that raises OperationalError or TimeoutError instead of waiting for longer than about
    `patience_seconds`: for a statement, a lock, a free connection, or a server that is frozen. Raises ValueError.
    """
    address, arguments = connect_arguments(url)
    arguments["application_name"] = application_name
    arguments["connect_timeout"] = max(2, math.ceil(patience_seconds))
    arguments["options"] = f"{arguments['options']} {server_limits(patience_seconds)}"
    engine = create_engine(
        address,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=patience_seconds,
        pool_pre_ping=True,
        connect_args=arguments,
        hide_parameters=True,
    )
    bound(engine, patience_seconds)
    return engine


def make_engine(url: str, *, application_name: str, pool_size: int = 5, silence_seconds: float | None = None) -> Engine:
    """An engine on `url`; `pool_size=0` opens a connection of its own each time (for heartbeats and LISTEN).

    Whatever the server's own setting, it gives no session up that was silent for less than `silence_seconds`. Errors do
    not show a statement's parameters: they hold lease tokens. Raises ValueError where the URL is not one of PostgreSQL.
    """
    address, arguments = connect_arguments(url, silence_seconds=silence_seconds)
    arguments["application_name"] = application_name
    if pool_size == 0:
        return create_engine(address, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    return create_engine(
        address,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args=arguments,
        hide_parameters=True,
    )


@event.listens_for(Engine, "before_cursor_execute")
def _binary_results(_conn: Any, cursor: Any, _sql: str, _parameters: Any, context: Any, _many: bool) -> None:
    """Statements with the execution option `binary_results` skip hexadecimal: a third of the time for large bytea."""
    if context.execution_options.get("binary_results"):
        cursor.format = Format.BINARY


@event.listens_for(Engine, "handle_error", retval=True)
def _as_if_away(context: ExceptionContext) -> OperationalError | None:
    """A session to a server that only reads, as after a failover, or that ended it because this process stopped in a
    transaction, is left as if the server were away.
    """
    error = context.original_exception
    if not isinstance(error, ReadOnlySqlTransaction | IdleInTransactionSessionTimeout):
        return None
    context.is_disconnect = True
    return OperationalError(context.statement, None, error, hide_parameters=True, connection_invalidated=True)


def connect_arguments(url: str, *, silence_seconds: float | None = None) -> tuple[URL, dict[str, str | int]]:
    """`postgresql://…` (or `postgres://…`) with the driver named, and libpq's options for every connection."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # whose texts hold parts of the URL
        raise ValueError(
            "this is no database URL: it has the form postgresql://user:password@host:port/name, with special "
            "characters of the password percent-encoded, and several hosts as ///name?host=a:5432&host=b:5432"
        ) from None
    if parsed.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError(f"the database URL must begin with postgresql://, not {parsed.drivername}://")
    given = parsed.query.get("options", "")
    ours = f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS}s"
    if silence_seconds is not None:
        idle = math.ceil(silence_seconds)
        ours += f" -c tcp_keepalives_idle={idle} -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
        ours += f" -c tcp_user_timeout={idle + 30}s"
    options = f"{ours} {given if isinstance(given, str) else ' '.join(given)} {_OURS}"
    address = parsed.set(drivername="postgresql+psycopg").difference_update_query(["options"])
    return address, {"connect_timeout": 5, "client_encoding": "utf8", "options": options, **_KEEPALIVE}


def alembic_config() -> Config:
    """Alembic's configuration, with the scripts of the package `migrations`."""
    folder = Path(migrations.__file__).parent
    config = Config(folder / "alembic.ini")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate to `revision`. Two processes at once are safe: the second waits, then finds nothing to do."""
    engine = make_engine(url, application_name="traind-migrate", pool_size=0)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def head_revision() -> str:
    """The newest revision this code knows."""
    return ScriptDirectory.from_config(alembic_config()).get_heads()[0]


def current_revision(conn: Connection) -> str | None:
    """The revision the database is at; None where it was never migrated."""
    return MigrationContext.configure(conn).get_current_revision()


def schema_fault(conn: Connection) -> str | None:
    """What is wrong with the schema's revision and the remedy; None if it is the one that this code needs."""
    revision = current_revision(conn)
    if revision == _head():
        return None
    found = f"the database is at revision {revision or 'none'}"
    return f"{found}, this version of traind needs {_head()}: run `traind db upgrade`"


_head = cache(head_revision)


def cluster_id(conn: Connection) -> UUID:
    """Which installation this is: goes into lock keys, NOTIFY channels and Redis keys."""
    ident: UUID = conn.execute(select(meta.c.cluster_id)).scalar_one()
    return ident
