"""What doctor says of a PostgreSQL, asked of real ones."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, text

from jobs.database import make_engine
from local.doctor import server
from local.doctor.findings import Finding, Level
from tests.conftest import Servers
from tests.local.doctor.judged import bad
from tests.local.doctor.pooling import pooled


def with_options(url: str, options: str) -> Engine:
    """Every session of this engine has these settings."""
    return make_engine(f"{url}{'&' if '?' in url else '?'}options={quote(options)}", application_name="t", pool_size=0)


@pytest.fixture
def ascii_database(servers: Servers) -> Iterator[str]:
    name = f"traind_test_{uuid.uuid4().hex}"
    make = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'"
    with psycopg.connect(servers.postgres, autocommit=True) as admin:
        admin.execute(sql.SQL(make).format(sql.Identifier(name)))
        yield servers.database(name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_server_as_it_should_be(engine: Engine) -> None:
    (finding,) = server.reachable(engine)
    assert finding.level is Level.OK
    assert "PostgreSQL" in finding.what
    assert server.migrations(engine, embedded=False).level is Level.OK
    assert server.privileges(engine).level is Level.OK
    assert server.capacity(engine, n_workers=1).level is Level.OK
    assert [each.level for each in server.pooler(engine)] == [Level.OK]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://nobody@127.0.0.1/none", "postgresql://"),
        ("postgresql://u:se:cret@h@/none", "TRAIND_DATABASE_URL"),
        ("postgresql://u:secret@host:port/none", "TRAIND_DATABASE_URL"),
        ("//", "TRAIND_DATABASE_URL"),
        ("", "TRAIND_DATABASE_URL"),
    ],
)
def test_a_url_that_is_none(url: str, says: str) -> None:
    finding = server.engine(url)
    if not isinstance(finding, Finding):  # odd, but a URL: the connection tells
        assert url == "postgresql://u:se:cret@h@/none"
        return
    assert finding.level is Level.ERROR
    assert says in finding.what + (finding.fix or "")
    assert "cret" not in finding.what


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ('FATAL:  password authentication failed for user "x"', "password"),
        ('FATAL:  database "x" does not exist', "createdb"),
        ("connection refused", "start the server"),
        ("FATAL: sorry, too many clients already", "max_connections"),
        ("FATAL:  no pg_hba.conf entry for host", "pg_hba.conf"),
        ("FATAL:  the database system is starting up", "wait"),
    ],
)
def test_why_it_cannot_be_reached_leads_to_the_fix(reason: str, fix: str) -> None:
    finding = server.unreachable(reason, embedded=False)
    assert (finding.level, reason in finding.what) == (Level.ERROR, True)
    assert fix in (finding.fix or "")
    assert "logs/postgres.log" in (server.unreachable(reason, embedded=True).fix or "")


def test_an_encoding_that_cannot_hold_names(ascii_database: str) -> None:
    other = server.engine(ascii_database)
    assert not isinstance(other, Finding)
    found = list(server.reachable(other))
    assert bad(found) == [("database", Level.ERROR)]
    assert "SQL_ASCII" in found[1].what


def test_a_database_that_only_reads(database_url: str) -> None:
    found = list(server.reachable(with_options(database_url, "-c default_transaction_read_only=on")))
    assert bad(found) == [("database", Level.ERROR)]


@pytest.mark.parametrize(("revision", "says"), [("0000", "does not know"), (None, "never migrated")])
def test_a_schema_of_another_version(engine: Engine, revision: str | None, says: str) -> None:
    with engine.begin() as conn:
        if revision is None:
            conn.execute(text("DELETE FROM alembic_version"))
        else:
            conn.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
    finding = server.migrations(engine, embedded=False)
    assert finding.level is Level.ERROR
    assert says in finding.what


def test_a_schema_that_is_behind(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "head_revision", lambda: "9999")
    finding = server.migrations(engine, embedded=False)
    assert (finding.level, finding.fix) == (Level.ERROR, "`traind db upgrade`")
    assert "this code wants 9999" in finding.what
    assert server.migrations(engine, embedded=True).fix == "`traind down` and `traind up`"


def test_a_role_without_rights(database_url: str) -> None:
    """The database's owner may take this role, which owns no table."""
    finding = server.privileges(with_options(database_url, "-c role=pg_database_owner"))
    assert finding.level is Level.ERROR
    assert "INSERT on " in finding.what
    assert "blob_chunk" in finding.what


def test_too_many_workers_for_the_server(engine: Engine) -> None:
    finding = server.capacity(engine, n_workers=1_000)
    assert finding.level is Level.ERROR
    assert "max_connections" in (finding.fix or "")


def test_a_role_that_may_not_look_at_other_sessions_counts_them(database_url: str) -> None:
    """To the database's owner, as a role, the sessions of others have no backend_type."""
    others = 10
    with ExitStack() as stack:
        for _ in range(others):
            stack.enter_context(psycopg.connect(database_url, application_name="somebody"))
        finding = server.capacity(with_options(database_url, "-c role=pg_database_owner"), n_workers=1)
    room, total = map(int, re.findall(r"(\d+) of (\d+) are free", finding.what)[0])
    assert room <= total - others


def test_settings_that_lose_work(database_url: str) -> None:
    found = list(server.durability(with_options(database_url, "-c synchronous_commit=off"), embedded_wal_mb=None))
    assert any("synchronous_commit is off" in each.what and each.level is Level.ERROR for each in found)
    whole = list(server.durability(with_options(database_url, "-c synchronous_commit=on"), embedded_wal_mb=None))
    assert not any("synchronous_commit" in each.what for each in whole)


def test_a_commit_that_waits_for_no_standby_is_a_warning(database_url: str) -> None:
    found = list(server.durability(with_options(database_url, "-c synchronous_commit=local"), embedded_wal_mb=None))
    (finding,) = [each for each in found if "synchronous_commit is local" in each.what]
    assert finding.level is Level.WARNING
    assert "standby" in finding.what
    assert not [each for each in found if each.level is Level.OK]


def test_a_small_max_wal_size(engine: Engine) -> None:
    found = list(server.durability(engine, embedded_wal_mb=1_000_000))
    assert ("durability", Level.WARNING) in bad(found)
    assert any("max_wal_size" in each.what for each in found)


def test_a_look_cannot_write(engine: Engine) -> None:
    with pytest.raises(Exception, match="read-only"), server.looking(engine) as conn:
        conn.execute(text("DELETE FROM worker"))


@pytest.mark.parametrize(("mode", "level"), [("transaction", Level.ERROR), ("session", Level.WARNING)])
def test_a_pooler_is_named(database_url: str, mode: str, level: Level) -> None:
    with pooled(database_url, mode) as url:  # type: ignore[arg-type]
        through = server.engine(url)
        assert not isinstance(through, Finding)
        found = list(server.pooler(through))
    assert bad(found) == [("pooler", level)]
    assert f"{mode} mode" in found[0].what
    assert ("PgBouncer" in found[0].what) is (mode == "transaction")
