"""Postgres: whether it can be reached, is one that works, lets us do what we must, and keeps what it was given.

Every look is a read-only transaction of its own with a time limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from jobs.database import (
    API_POOL_SIZE,
    WORKER_POOL_SIZE,
    alembic_config,
    current_revision,
    head_revision,
    make_engine,
)
from jobs.tables import metadata
from local.doctor.findings import Finding, error, ok, warning

APPLICATION_NAME = "traind-doctor"
STATEMENT_SECONDS = 10
OLDEST, NEWEST = 15, 18
LEAST_WAL_MB = 1_024
CROWDED = 0.8
URL_FIX = "set TRAIND_DATABASE_URL to postgresql://USER:PASSWORD@HOST:PORT/DATABASE (special characters as %XX)"
POOLER_FIX = (
    "let TRAIND_DATABASE_URL lead to PostgreSQL itself, or to a pool_mode=session one: locks and LISTEN need it"
)

_FACTS = text("""
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
           current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS replica,
           current_setting('default_transaction_read_only')::boolean AS read_only,
           current_user AS role, current_database() AS name
""")
_CAPACITY = text("""
    SELECT current_setting('max_connections')::integer AS total,
           (SELECT sum(setting::integer) FROM pg_settings
            WHERE name IN ('superuser_reserved_connections', 'reserved_connections')) AS reserved,
           (SELECT count(*) FROM pg_stat_activity
            WHERE coalesce(backend_type, 'client backend') = 'client backend'
              AND datid IS NOT NULL AND usesysid IS NOT NULL AND application_name NOT LIKE 'traind-%') AS others
""")
"""A role without pg_read_all_stats sees no backend_type of other roles' sessions. Autovacuum workers have no user."""
_SETTINGS = text("""
    SELECT name, setting FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'max_wal_size')
""")
_WHY_NOT = {
    "password authentication failed": "correct user and password in TRAIND_DATABASE_URL (PGPASSWORD, PGPASSFILE)",
    "no password supplied": "put the password into TRAIND_DATABASE_URL, or into PGPASSWORD",
    "no pg_hba.conf entry": "allow this machine, user and database in the server's pg_hba.conf",
    "does not exist": "make the database or the role (createdb, createuser), or correct TRAIND_DATABASE_URL",
    "unsupported startup parameter": POOLER_FIX,
    "too many clients": "raise max_connections of the server, or run fewer processes",
    "remaining connection slots": "raise max_connections of the server, or run fewer processes",
    "starting up": "wait: it recovers; its log says how far it is",
}


class Fact(NamedTuple):
    """A setting that keeps committed work while it is on, and what is risked while it is off."""

    name: str
    risk: str


DURABILITY = (
    Fact("fsync", "a crash of the machine can destroy the whole database"),
    Fact("full_page_writes", "a crash of the machine can destroy the whole database"),
    Fact("synchronous_commit", "a crash of the server loses work that was already confirmed"),
)


def engine(url: str) -> Engine | Finding:
    """An engine on the database, or why the URL cannot be one's. Connects to nothing.

    It asks for UTF8, so that a database of another encoding can say so.
    """
    try:
        asking = make_url(url).update_query_dict({"client_encoding": "utf8"})
    except (ArgumentError, ValueError):
        return error("database", "TRAIND_DATABASE_URL cannot be read as a URL", URL_FIX)
    try:
        url = asking.render_as_string(hide_password=False)
        return make_engine(url, application_name=APPLICATION_NAME, pool_size=0)
    except ValueError as problem:
        return error("database", str(problem), URL_FIX)


@contextmanager
def looking(database: Engine) -> Iterator[Connection]:
    """A transaction that cannot write and does not hang."""
    with database.begin() as conn:
        conn.execute(text("SET TRANSACTION READ ONLY"))
        conn.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'"))
        yield conn


def unreachable(reason: str, *, embedded: bool) -> Finding:
    """The finding for a connection that failed with `reason`."""
    if "unsupported startup parameter" in reason:
        what = "PgBouncer stands before the database and refuses our connections, which set timeouts by `options`"
        return error("database", what, "let TRAIND_DATABASE_URL lead to PostgreSQL itself: locks and timeouts need it")
    if embedded:
        fix = "look into logs/postgres.log of the data folder; `traind down` and `traind up` start it again"
    else:
        known = (fix for words, fix in _WHY_NOT.items() if words in reason)
        fix = next(known, "start the server, or correct host and port in TRAIND_DATABASE_URL")
    return error("database", f"it cannot be reached: {reason}", fix)


def reachable(database: Engine) -> Iterator[Finding]:
    """Version, encoding, and whether it takes writes. Raises DBAPIError."""
    with looking(database) as conn:
        facts = conn.execute(_FACTS).one()
    major = facts.number // 10_000
    if major < OLDEST:
        yield error("database", f"PostgreSQL {facts.version} is too old", f"use PostgreSQL {OLDEST} to {NEWEST}")
    elif major > NEWEST:
        what = f"traind was not tried on PostgreSQL {facts.version}"
        yield warning("database", what, f"use PostgreSQL {OLDEST} to {NEWEST}, or a newer traind")
    else:
        yield ok("database", f"PostgreSQL {facts.version}, database {facts.name}, role {facts.role}")
    if facts.encoding != "UTF8":
        fix = "make the database anew: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        yield error("database", f"its encoding is {facts.encoding}; names and messages need UTF8", fix)
    if facts.replica:
        yield error("database", "it is a replica, which only reads", "let TRAIND_DATABASE_URL lead to the primary")
    elif facts.read_only:
        fix = f'ALTER ROLE "{facts.role}" SET default_transaction_read_only = off (or the database\'s setting)'
        yield error("database", "its transactions only read", fix)


def pooler(database: Engine) -> Iterator[Finding]:
    """Whether sessions are our own. Raises DBAPIError.

    A pooler tells another process id than the server's. In transaction mode a second connection is lent the server
    process that the first one just used.
    """
    with database.connect() as one, database.connect() as other:
        told = _driver(one).info.backend_pid
        first = _backend_pid(one)
        one.rollback()
        held = _backend_pid(other)
        again = _backend_pid(one)
        other.rollback()
    if first == held or first != again:
        what = "PgBouncer in transaction mode (or a pooler like it) stands before the database"
        yield error("pooler", what, POOLER_FIX)
    elif told != first:
        what = "a pooler in session mode stands before the database; a worker that lost its connection waits longer"
        yield warning("pooler", what, "let TRAIND_DATABASE_URL lead to PostgreSQL itself")
    else:
        yield ok("pooler", "none: connections are our own")


def _driver(conn: Connection) -> Any:
    return conn.connection.driver_connection


def _backend_pid(conn: Connection) -> int:
    return int(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())


def durability(database: Engine, *, embedded_wal_mb: int | None) -> Iterator[Finding]:
    """Whether what was committed stays. `embedded_wal_mb` is what an embedded server should have. Raises DBAPIError."""
    with looking(database) as conn:
        settings = {row.name: row.setting for row in conn.execute(_SETTINGS)}
    bad = [fact for fact in DURABILITY if settings[fact.name] == "off"]
    for fact in bad:
        yield error("durability", f"{fact.name} is off: {fact.risk}", f"set {fact.name} = on on the server")
    local = settings["synchronous_commit"] == "local"
    if local:
        what = "synchronous_commit is local: a failover to a synchronous standby loses work that was already confirmed"
        yield warning("durability", what, "where it has such a standby, set synchronous_commit = on on the server")
    wal_mb = int(settings["max_wal_size"])
    if wal_mb < (embedded_wal_mb or LEAST_WAL_MB):
        what = f"max_wal_size is {wal_mb:,} MB: while checkpoints are uploaded the server is busy with its own"
        wanted = f"{embedded_wal_mb or 4 * LEAST_WAL_MB} MB"
        fix = (
            "`traind down` and `traind up` set it" if embedded_wal_mb else f"set max_wal_size = {wanted} on the server"
        )
        yield warning("durability", what, fix)
    elif not bad and not local:
        yield ok("durability", f"commits are kept; max_wal_size is {wal_mb:,} MB")


def migrations(database: Engine, *, embedded: bool) -> Finding:
    """Whether the schema is this code's. Raises DBAPIError."""
    with looking(database) as conn:
        current = current_revision(conn)
    head, upgrade = head_revision(), "`traind down` and `traind up`" if embedded else "`traind db upgrade`"
    if current == head:
        return ok("migrations", f"at {head}, as this code wants")
    if current is None:
        return error("migrations", "the database was never migrated", upgrade)
    if _known(current):
        return error("migrations", f"the database is at {current}, this code wants {head}", upgrade)
    fix = "install the traind that migrated it, or a newer one, on this machine"
    return error("migrations", f"the database is at {current}, which this code does not know: it is newer", fix)


def _known(revision: str) -> bool:
    try:
        return ScriptDirectory.from_config(alembic_config()).get_revision(revision) is not None
    except CommandError:
        return False


def privileges(database: Engine) -> Finding:
    """Whether the role may do what the processes do. Only where the schema is there. Raises DBAPIError."""
    with looking(database) as conn:
        lacking = [*_lacking_on_tables(conn), *_lacking_for_partitions(conn)]
        role = conn.execute(text("SELECT current_user")).scalar_one()
    if not lacking:
        return ok("privileges", f"{role} may read, write and make partitions")
    fix = f'run `traind db upgrade` and the processes as the tables\' owner, or: GRANT "(owner)" TO "{role}"'
    return error("privileges", f"{role} may not {'; '.join(lacking)}", fix)


def _lacking_on_tables(conn: Connection) -> Iterator[str]:
    query = text("SELECT has_table_privilege(format('%I', cast(:table AS text)), :verb)")
    for verb in ("SELECT", "INSERT", "UPDATE", "DELETE"):
        asked = {name: conn.execute(query, {"table": name, "verb": verb}).scalar_one() for name in metadata.tables}
        if refused := sorted(name for name, granted in asked.items() if not granted):
            yield f"{verb} on {', '.join(refused)}"


def _lacking_for_partitions(conn: Connection) -> Iterator[str]:
    owner = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'blob_chunk'::regclass"
    if not conn.execute(text(owner)).scalar_one():
        yield "make partitions of blob_chunk, which belongs to another role"
    if not conn.execute(text("SELECT has_schema_privilege(current_schema(), 'CREATE')")).scalar_one():
        yield "make tables in the schema"


def capacity(database: Engine, *, n_workers: int) -> Finding:
    """Whether the server lets one api and these workers in, beside everybody else who is there. Raises DBAPIError."""
    with looking(database) as conn:
        facts = conn.execute(_CAPACITY).one()
    room = facts.total - facts.reserved - facts.others
    needed = API_POOL_SIZE + (WORKER_POOL_SIZE + 1) * max(1, n_workers)
    what = f"an api and {max(1, n_workers)} worker(s) use up to {needed} connections; {room} of {facts.total} are free"
    fix = "raise max_connections of the server, or run fewer processes"
    if needed > room:
        return error("connections", what, fix)
    return warning("connections", what, fix) if needed > CROWDED * room else ok("connections", what)
