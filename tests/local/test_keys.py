"""`traind keys` and `traind projects`, as an operator uses them, against a real database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine

from jobs.keys import authenticate
from tests.local.up import EMBEDDED, Up
from tests.traind.commands import Here


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return {**os.environ, "TRAIND_DATABASE_URL": database_url}


def keys(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return traind(env, "keys", *arguments)


def traind(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "traind", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_opens_what_its_scopes_say_until_it_is_revoked(env: dict[str, str], engine: Engine) -> None:
    made = keys(env, "create", "an engineer", "--scope", "read")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    with engine.connect() as conn:
        known = authenticate(conn, key)
    assert known is not None
    assert (known.name, known.scopes) == ("an engineer", {"read"})

    listed = keys(env | {"TZ": "JST-9"}, "ls").stdout
    assert f"{known.key_id}\tan engineer\tread" in listed
    assert listed.splitlines()[-1].endswith(" JST")
    assert key not in listed

    assert keys(env, "revoke", str(known.key_id)).returncode == 0
    assert "revoked" in keys(env, "ls").stdout
    with engine.connect() as conn:
        assert authenticate(conn, key) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "x", "--scope", "root"), "read, write, admin"),
        (("revoke", "999"), "999"),
        (("create", ""), "must not be empty"),
        (("create", " \t "), "must not be empty"),
        (("create", "a\nb"), "line ends"),
        (("create", "\udcff"), "UTF-8"),
        (("create", "x" * 201), "201 characters"),
        (("create", "x", "--project", "nowhere"), "nowhere"),
        (("create", "x", "--project", ""), "no project"),
        (("ls", "--project", "\x1b[31mred"), "no project"),
    ],
)
def test_bad_input_says_what_is_wrong(here: Here, env: dict[str, str], arguments: tuple[str, ...], says: str) -> None:
    done = here("keys", *arguments, env=env)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_number_that_no_id_can_be_is_a_wrong_argument(here: Here, env: dict[str, str]) -> None:
    done = here("keys", "revoke", str(2**63), env=env)
    assert (done.returncode, "the database" in done.stderr) == (2, False)


def test_without_a_database_it_says_where_the_local_key_is(tmp_path: Path) -> None:
    done = keys(EMBEDDED, "ls", "--data-dir", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "api-key" in done.stderr


@pytest.mark.parametrize(
    ("changes", "says", "code"),
    [
        ({"TRAIND_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "refused", 1),
        ({"TRAIND_DATABASE_URL": "mysql://nobody@127.0.0.1:1/none"}, "postgresql://", 2),
        ({"TRAIND_LEASE_SECONDS": "soon"}, "TRAIND_LEASE_SECONDS", 2),
    ],
)
def test_what_cannot_be_used_is_named(
    here: Here, env: dict[str, str], changes: dict[str, str], says: str, code: int
) -> None:
    done = here("keys", "ls", env=env | changes)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_project_has_keys_of_its_own(env: dict[str, str], engine: Engine) -> None:
    assert traind(env, "projects", "create", " vision ").returncode == 0
    key = keys(env, "create", "robot", "--scope", "write", "--project", "vision").stdout.strip()
    with engine.connect() as conn:
        known = authenticate(conn, key)
    assert known is not None
    assert f"{known.project_id}\tvision\t1 keys" in traind(env, "projects", "ls").stdout
    assert "robot" in keys(env, "ls", "--project", "vision").stdout
    assert "robot" not in keys(env, "ls").stdout
    assert keys(env, "revoke", str(known.key_id)).returncode == 1, "it is another project's"
    assert keys(env, "revoke", str(known.key_id), "--project", "vision").returncode == 0
    assert "vision\t0 keys" in traind(env, "projects", "ls").stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "must not be empty"),
        ("  ", "must not be empty"),
        ("default", "already"),
        ("a\x07b", "control"),
        ("x" * 300, "300"),
    ],
)
def test_a_bad_project_name_is_refused(here: Here, env: dict[str, str], name: str, says: str) -> None:
    done = here("projects", "create", name, env=env)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def up(data_dir: Path) -> Iterator[Up]:
    with closing(Up(data_dir)) as up:
        yield up


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_keys_of_a_service_on_this_machine_are_made_by_its_data_folder(data_dir: Path, up: Up) -> None:
    made = keys(EMBEDDED, "create", "colleague", "--data-dir", str(data_dir))
    assert made.returncode == 0, made.stderr
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    assert httpx2.get(f"{up.url}/v1/jobs", headers=headers, trust_env=False, timeout=60).status_code == 200
    assert "colleague" in keys(EMBEDDED, "ls", "--data-dir", str(data_dir)).stdout
    assert "default" in traind(EMBEDDED, "projects", "ls", "--data-dir", str(data_dir)).stdout
