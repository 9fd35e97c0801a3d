"""The server's commands with a full disk behind stdout or stderr, and with closed streams."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine

from jobs.keys import create, list_keys
from tests.local.up import EMBEDDED

FULL = "traind: standard output cannot be written: No space left on device"


DEMO_WITH_NOTHING_TO_COMPARE = """
from pathlib import Path
from local import demo
demo.tell([], {}, "http://127.0.0.1:1", Path("/data"))
"""


def shell(arguments: str, redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = f"{shlex.join([sys.executable, '-P', '-m', 'traind'])} {arguments} {redirection}"
    return subprocess.run(
        command, shell=True, env=EMBEDDED | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "redirection"),
    [("keys ls", "> /dev/full"), ("projects ls", ">&-"), ("gc", "> /dev/full")],
)
def test_what_cannot_be_shown_is_an_error_in_one_line(
    database_url: str, engine: Engine, project_id: int, arguments: str, redirection: str
) -> None:
    with engine.begin() as conn:
        create(conn, project_id, name="someone", scopes=["read"])
    done = shell(arguments, redirection, TRAIND_DATABASE_URL=database_url)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("traind: standard output cannot be written: ")
    assert "Traceback" not in done.stderr


def test_findings_that_cannot_be_shown_are_an_error_in_one_line() -> None:
    done = shell("doctor", "> /dev/full", TRAIND_LEASE_SECONDS="soon")
    assert (done.returncode, done.stderr.strip()) == (1, FULL)


def test_a_key_that_cannot_be_shown_is_not_made(database_url: str, engine: Engine, project_id: int) -> None:
    done = shell("keys create someone", "> /dev/full", TRAIND_DATABASE_URL=database_url)
    assert (done.returncode, FULL in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    with engine.connect() as conn:
        assert [row.name for row in list_keys(conn, project_id)] == []


@pytest.mark.parametrize("redirection", ["2> /dev/full", ">&- 2>&- <&-"])
def test_what_has_nothing_to_show_works_without_streams(tmp_path: Path, redirection: str) -> None:
    assert shell(f"down --data-dir {tmp_path}", redirection).returncode == 0


@pytest.mark.parametrize("redirection", ["> /dev/full", "2> /dev/full"])
def test_a_service_that_cannot_say_where_it_is_runs_all_the_same(
    database_url: str, redis_url: str, data_dir: Path, redirection: str
) -> None:
    up = shlex.join(
        [sys.executable, "-P", "-m", "traind", "up", "--no-worker", "--port", "0", "--data-dir", str(data_dir)]
    )
    env = EMBEDDED | {"TRAIND_DATABASE_URL": database_url, "TRAIND_REDIS_URL": redis_url}
    with subprocess.Popen(
        f"exec {up} {redirection}", shell=True, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            said = process.stderr if redirection.startswith(">") else process.stdout
            assert said is not None
            url = next(found[0] for line in said if (found := re.search(r"http://\S+", line)))
            assert httpx2.get(f"{url}/livez", trust_env=False, timeout=60).status_code == 200
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()


def test_the_demo_says_where_everything_is_although_it_cannot_show_its_table() -> None:
    command = f"{shlex.join([sys.executable, '-c', DEMO_WITH_NOTHING_TO_COMPARE])} > /dev/full"
    done = subprocess.run(command, shell=True, env=EMBEDDED, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "rm -r /data" in done.stderr
