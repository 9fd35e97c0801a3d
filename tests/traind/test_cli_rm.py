"""`traind rm`, against a real service."""

from __future__ import annotations

import pytest

from tests.traind.commands import Here
from tests.traind.conftest import SPEC
from tests.traind.test_cli_service import ENDLESS
from traind.client import Client
from traind.errors import ApiError

UNKNOWN = "00000000-0000-7000-8000-000000000000"


def test_jobs_and_checkpoints_are_deleted(here: Here, env: dict[str, str], client: Client) -> None:
    job = client.wait(client.submit(SPEC | {"name": "to go"}).id, timeout_seconds=60)
    first, *rest = client.checkpoints(job.id)
    done = here("rm", "--checkpoint", str(first.id), "--yes", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"deleted {first.id}\n")
    assert client.checkpoints(job.id) == tuple(rest)
    asked = here("rm", job.id, env=env)
    assert (asked.returncode, "say --yes" in asked.stderr) == (2, True)
    assert client.get(job.id).id == job.id
    mixed = here("rm", UNKNOWN, job.id, "--yes", env=env)
    assert mixed.returncode == 1
    assert f"there is no job {UNKNOWN}" in mixed.stderr
    assert f"deleted {job.id}" in mixed.stderr
    with pytest.raises(ApiError, match="there is no job"):
        client.get(job.id)


def test_a_running_job_is_refused(here: Here, env: dict[str, str], client: Client) -> None:
    job_id = here("submit", *ENDLESS, env=env).stdout.strip()
    done = here("rm", job_id, "-y", env=env)
    client.cancel(job_id)
    assert done.returncode == 1
    assert "cannot delete a job that is" in done.stderr
    assert "cancel" in done.stderr
    client.wait(job_id, timeout_seconds=30)


@pytest.mark.parametrize("ident", ["0", "-1", "x", "1.5", "9" * 30, "٣", "1;DROP"])
def test_odd_checkpoints(here: Here, env: dict[str, str], ident: str) -> None:
    assert here("rm", "--yes", "--checkpoint", "--", ident, env=env).returncode == 2
