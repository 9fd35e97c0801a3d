"""`traind keys`, as an operator uses it, against a real database."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sqlalchemy import Engine

from jobs.keys import authenticate


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return {**os.environ, "TRAIND_DATABASE_URL": database_url}


def keys(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "traind", "keys", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_opens_what_its_scopes_say_until_it_is_revoked(env: dict[str, str], engine: Engine) -> None:
    made = keys(env, "create", "an engineer", "--scope", "read")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    with engine.connect() as conn:
        known = authenticate(conn, key)
    assert known is not None
    assert (known.name, known.scopes) == ("an engineer", {"read"})

    listed = keys(env, "ls").stdout
    assert f"{known.key_id}\tan engineer\tread" in listed
    assert key not in listed

    assert keys(env, "revoke", str(known.key_id)).returncode == 0
    assert "revoked" in keys(env, "ls").stdout
    with engine.connect() as conn:
        assert authenticate(conn, key) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("create", "x", "--scope", "root"), "read, write, admin"), (("revoke", "999"), "999")],
)
def test_bad_input_says_what_is_wrong(env: dict[str, str], arguments: tuple[str, ...], says: str) -> None:
    done = keys(env, *arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_database_it_says_where_the_local_key_is(env: dict[str, str]) -> None:
    done = keys({name: value for name, value in env.items() if name != "TRAIND_DATABASE_URL"}, "ls")
    assert done.returncode == 1
    assert "api-key" in done.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"TRAIND_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "refused"),
        ({"TRAIND_DATABASE_URL": "mysql://nobody@127.0.0.1:1/none"}, "postgresql://"),
        ({"TRAIND_LEASE_SECONDS": "soon"}, "TRAIND_LEASE_SECONDS"),
    ],
)
def test_what_cannot_be_used_is_named(env: dict[str, str], changes: dict[str, str], says: str) -> None:
    done = keys(env | changes, "ls")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
