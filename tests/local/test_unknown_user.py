"""A user without HOME and without an entry in passwd (`docker run --user 12345`): all runs, or says what to set.

`unshare` gives that user a namespace in which he keeps our rights to files, so that he may run this Python.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.local.up import EMBEDDED, START_SECONDS, Up
from tests.worker.proxy import postgres_proxy, redis_proxy

UNKNOWN = ("unshare", "--user", "--map-user=12345", "--map-group=12345", "--")
HOMELESS = (*UNKNOWN, "env", "-u", "HOME", "-u", "XDG_CACHE_HOME", "-u", "XDG_DATA_HOME")
pytestmark = pytest.mark.slow


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*HOMELESS, sys.executable, "-P", "-m", *arguments]
    return subprocess.run(
        command, env=EMBEDDED | environment, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def _unknown_user() -> None:
    ask = "import os, pwd\ntry: pwd.getpwuid(os.geteuid())\nexcept KeyError: print(os.geteuid(), 'HOME' in os.environ)"
    found = subprocess.run([*HOMELESS, sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no user namespace can be made here: {found.stderr.strip()}")
    assert found.stdout == "12345 False\n"


def test_api_worker_and_command_line_work(data_dir: Path, database_url: str, redis_url: str) -> None:
    """By `traind up`, on servers elsewhere: it starts an api and a worker as the same user."""
    data_dir.chmod(0o777)
    with postgres_proxy(database_url) as (_, database), redis_proxy(redis_url) as (_, redis):
        servers = {"TRAIND_DATABASE_URL": database, "TRAIND_REDIS_URL": redis}
        with closing(Up(data_dir / "d", through=HOMELESS, **servers)) as up:
            assert up.alive()
            service = {"TRAIND_URL": up.url, "TRAIND_API_KEY": (data_dir / "d" / "api-key").read_text().strip()}
            flags = ("--dataset=digits", "--model=linear", "--optimizer=sgd", "--lr=0.1", "--epochs=1", "--watch")
            watched = run("traind", "submit", *flags, **service)
            assert watched.returncode == 0, watched.stderr
            assert run("traind", "keys", "ls", **servers).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["traind", "up"], "give --data-dir, or set TRAIND_DATA_DIR or HOME"),
        (
            ["traind", "up", "--data-dir={}"],
            "PostgreSQL does not run as user 12345, who has no entry in passwd: add one",
        ),
        (["traind", "ls"], "give --data-dir, or set TRAIND_DATA_DIR or HOME"),
        (["traind", "down"], "give --data-dir, or set TRAIND_DATA_DIR or HOME"),
    ],
)
def test_what_needs_a_home_or_a_name_says_what_to_set(data_dir: Path, arguments: list[str], remedy: str) -> None:
    data_dir.chmod(0o777)
    done = run(*(each.format(data_dir / "d") for each in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert remedy in done.stderr
    assert len(done.stderr.splitlines()) == 1
