"""Every process refuses settings that cannot be used, in one line and before it does anything (the api: test_process).

One fault each: tests/jobs/test_addresses.py has all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATABASE, REDIS = "TRAIND_DATABASE_URL", "TRAIND_REDIS_URL"


def run(*module: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAIND_")}
    command = [sys.executable, "-P", "-m", *module]
    return subprocess.run(
        command, env=environment | settings, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(
    ("command", "variable", "value", "code"),
    [
        ("worker", REDIS, "redis://:hunter2@h/0?ssl_cert_reqs=CERT_REQUIRED", 2),
        ("worker.health", "TRAIND_WORKER_QUEUES", "no job", 1),
        ("api.health", "TRAIND_PORT", "70000", 1),
        ("traind up --data-dir nowhere", DATABASE, "postgresql://me:hunter2@h/d?schema=public", 2),
        ("traind demo --data-dir nowhere", REDIS, "amqp://me:hunter2@h", 2),
        ("traind keys ls", DATABASE, "postgresql://me:hun#ter2@h/d", 2),
        ("traind db upgrade", DATABASE, "postgresql://me:hunter2@h:99999/d", 2),
        ("alembic -c migrations/alembic.ini upgrade head", DATABASE, "mysql://me:hunter2@h/d", 255),
        ("traind doctor --data-dir nowhere", "TRAIND_LEASE_SECONDS", "hunter2", 1),
    ],
)
def test_each_process_refuses_in_one_line(command: str, variable: str, value: str, code: int) -> None:
    refused = run(*command.split(), **{variable: value})
    said = (refused.stderr + refused.stdout).strip()
    assert refused.returncode == code, said
    assert variable in said
    assert "ter2" not in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1 or command.startswith("traind doctor"), said
    assert not (ROOT / "nowhere").exists()


def test_down_needs_no_settings(tmp_path: Path) -> None:
    down = run("traind", "down", "--data-dir", str(tmp_path), **{DATABASE: "mysql://", "TRAIND_PORT": "x"})
    assert (down.returncode, down.stderr) == (0, f"no service runs in {tmp_path}\n")


def test_a_misspelt_name_is_told_at_start() -> None:
    """And is no reason to stop: here the address and the database are not there."""
    servers = {DATABASE: "postgresql://127.0.0.1:1/d", REDIS: "redis://127.0.0.1:1"}
    for command in ("api --host 192.0.2.1", "traind db upgrade"):
        told = run(*command.split(), TRAIND_SCRATCHDIR="hunter2", **servers)
        assert told.returncode == 1, told.stderr
        assert "TRAIND_SCRATCHDIR is set, but traind has no such variable" in told.stderr
        assert "did you mean TRAIND_SCRATCH_DIR?" in told.stderr
        assert "hunter2" not in told.stderr
