"""`traind pause`, `resume` and `retry` with a whole service behind them."""

from __future__ import annotations

import json

from tests.traind.commands import Here
from tests.traind.test_cli_service import ENDLESS, endless  # noqa: F401  a fixture
from tests.worker.service import until
from traind.client import Client, Job


def test_pause_and_resume(here: Here, env: dict[str, str], client: Client, endless: str) -> None:  # noqa: F811
    until(lambda: client.get(endless).progress.step, lambda step: step >= 100)
    asked = here("pause", endless, "-o", "json", env=env)
    assert asked.returncode == 0
    assert json.loads(asked.stdout)[0]["state"] in ("pausing", "paused")
    job = until(lambda: client.get(endless), lambda job: job.state != "pausing")
    assert (job.state, job.progress.saved_step) == ("paused", job.progress.step)
    header, row = here("pause", endless, env=env).stdout.splitlines()
    assert header.split()[7:9] == ["step", "saved"]
    assert str(job.progress.saved_step) in row.split()
    assert f"saved at {job.progress.saved_step}" in here("get", endless, env=env).stdout
    resumed = here("resume", endless, env=env)
    assert resumed.returncode == 0
    assert "queued" in resumed.stdout or "running" in resumed.stdout
    until(lambda: client.get(endless).progress.step, lambda step: step > job.progress.step)


def test_retry_from_the_start(here: Here, env: dict[str, str], client: Client) -> None:
    job_id = here("submit", *ENDLESS, env=env).stdout.strip()
    client.cancel(job_id)
    client.wait(job_id, timeout_seconds=30)
    attempts = client.get(job_id).attempt
    retried = here("retry", job_id, "--from", "start", "-o", "json", env=env)
    assert retried.returncode == 0
    until(lambda: client.get(job_id).attempt, lambda attempt: attempt == attempts + 1)
    assert [event.data for event in client.events(job_id) if event.kind == "retried"] == [{"from": "start", "step": 0}]
    client.cancel(job_id)
    client.wait(job_id, timeout_seconds=30)


def test_a_job_that_has_ended_well_is_left_alone(here: Here, env: dict[str, str], finished: Job) -> None:
    for verb in ("pause", "resume", "retry"):
        done = here(verb, finished.id, env=env)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"cannot {verb} a job that is succeeded" in done.stderr


def test_a_place_to_start_from_that_does_not_exist(here: Here, env: dict[str, str], finished: Job) -> None:
    done = here("retry", finished.id, "--from", "middle", env=env)
    assert (done.returncode, done.stdout) == (2, "")
