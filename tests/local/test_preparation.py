"""Settings and migration: what a wrong variable leads to, and `traind db upgrade`."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.engine import make_url

from jobs.database import head_revision
from jobs.settings import InvalidSettings, load
from local import preparation
from local.errors import DatabaseUnusable
from tests.local.up import traind


def test_wrong_settings_are_named_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIND_PORT", "secret-x")
    monkeypatch.setenv("TRAIND_LEASE_SECONDS", "-1")
    with pytest.raises(InvalidSettings, match=r"TRAIND_LEASE_SECONDS: .*TRAIND_PORT: ") as caught:
        load()
    assert "secret-x" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://u:hidden@h/d", "postgresql://u:hidden@127.0.0.1:1/d", "nonsense hidden"])
def test_an_unusable_database_is_an_error_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match="TRAIND_DATABASE_URL") as caught:
        preparation.migrate(url)
    assert "hidden" not in str(caught.value)


def test_db_upgrade_migrates_an_empty_database(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    for _ in range(2):
        done = traind("db", "upgrade", TRAIND_DATABASE_URL=database_url)
        assert done.returncode == 0, done.stderr
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(head_revision(),)]


def test_db_upgrade_without_a_database_or_with_none_there_says_so(database_url: str) -> None:
    assert "set TRAIND_DATABASE_URL" in traind("db", "upgrade").stderr
    missing = make_url(database_url).set(database="nowhere").render_as_string(hide_password=False)
    done = traind("db", "upgrade", TRAIND_DATABASE_URL=missing)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert 'database "nowhere" does not exist' in done.stderr
