"""`traind cancel`, `pause`, `resume` and `retry`: against a whole service, and against scripted refusals."""

from __future__ import annotations

import json

import pytest

from tests.traind.commands import Here
from tests.traind.scripted import Step, answer, hang_up, scripted
from tests.traind.test_cli_checks import CHECK, RUNNING, env_of
from tests.traind.test_cli_service import ENDLESS, endless  # noqa: F401  a fixture
from tests.traind.test_client import job, problem
from tests.worker.service import until
from traind.client import Client, Job

ONE, TWO, THREE = (f"0199b3c4-0000-7222-8333-44445555666{i}" for i in range(3))
UNKNOWN = answer(problem("not-found", 404), 404)
REFUSALS = {
    "it has ended": answer(problem("state-conflict", 409, detail="cannot retry a job that is succeeded"), 409),
    "it is unknown": answer(problem("not-found", 404, detail=f"there is no job {TWO}"), 404),
    "its answer was lost": hang_up,
}


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
    (retry,) = [event.data for event in client.events(job_id) if event.kind == "retried"]
    assert (retry["from"], retry["step"]) == ("start", 0)
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


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_the_others_are_asked_and_shown_where_one_is_refused(here: Here, refusal: Step) -> None:
    for options in ((), ("-o", "json")):
        with scripted(answer(job(id=ONE)), refusal, answer(job(id=THREE))) as service:
            done = here("retry", ONE, TWO, THREE, *options, env=env_of(service))
        assert done.returncode == 1
        assert [ident in done.stdout for ident in (ONE, TWO, THREE)] == [True, False, True]
        (said,) = done.stderr.splitlines()
        assert said.count(TWO) == 1
        assert said.removeprefix("traind: ") != said
        if options:
            assert [shown["id"] for shown in json.loads(done.stdout)] == [ONE, THREE]


def test_what_concerns_every_job_ends_the_asking_and_what_was_done_is_shown(here: Here) -> None:
    with scripted(answer(job(id=ONE)), answer(problem("invalid-key", 401), 401)) as service:
        done = here("pause", ONE, TWO, THREE, env=env_of(service))
        assert len(service.seen) == 2
    assert (done.returncode, ONE in done.stdout) == (1, True)
    assert "set TRAIND_API_KEY" in done.stderr


def test_nothing_is_asked_where_an_argument_is_no_id(here: Here) -> None:
    with scripted(answer(job(id=ONE))) as service:
        done = here("pause", ONE, "nonsense", env=env_of(service))
        assert (done.returncode, done.stdout, service.seen) == (2, "", [])


def test_cancel_takes_a_check_beside_a_job(here: Here) -> None:
    for options in ((), ("-o", "json")):
        with scripted(answer(job(id=ONE)), UNKNOWN, answer(RUNNING | {"state": "cancelling"}, 202)) as service:
            done = here("cancel", ONE, CHECK, *options, env=env_of(service))
        assert (done.returncode, done.stderr) == (0, "")
        assert [seen.path for seen in service.seen][1:] == [f"/v1/jobs/{CHECK}/cancel", f"/v1/checks/{CHECK}/cancel"]
        if options:
            assert [shown["id"] for shown in json.loads(done.stdout)] == [ONE, CHECK]
        else:
            assert [line.split()[0] for line in done.stdout.splitlines()] == ["id", ONE, "id", CHECK]


def test_what_is_neither_job_nor_check_says_where_both_are_listed(here: Here) -> None:
    with scripted(UNKNOWN) as service:
        done = here("cancel", CHECK, env=env_of(service))
    assert (done.returncode, done.stdout) == (1, "")
    for part in (f"no job or check {CHECK}", "`traind ls`", "`traind checks JOB`"):
        assert part in done.stderr
