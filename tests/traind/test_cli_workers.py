"""`traind workers`: with a real service, and with answers that a healthy one does not give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.traind.commands import Here
from tests.traind.conftest import SPEC
from tests.traind.scripted import answer, scripted
from traind.client import Client, Job

AT = "2026-11-22T12:00:00Z"
WORKER: dict[str, Any] = {
    "id": "019a9d2b-aaaa-4000-8000-000000000000",
    "name": "box",
    "state": "live",
    "device": "cuda",
    "queues": ["cuda", "default"],
    "versions": {"traind": "0.1.0", "torch": "2.13.0"},
    "started_at": AT,
    "last_seen_at": AT,
    "seen_seconds": 2.5,
}


@pytest.fixture
def running(client: Client) -> Iterator[Job]:
    """A job that runs and has told its rate; cancelled afterwards."""
    endless = {**SPEC, "name": "endless", "labels": {}, "training": {"epochs": 1_000_000, "threads": 1}}
    job = client.submit(endless)
    while job.progress.rate_steps_per_second is None:
        job = client.get(job.id)
    yield job
    client.cancel(job.id)
    client.wait(job.id, timeout_seconds=30)


def shown(here: Here, document: Any, *arguments: str, note: str = "") -> list[str]:
    """The lines of the table for these workers."""
    with scripted(answer({"workers": document})) as service:
        done = here("workers", *arguments, env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"})
        assert service.seen[0].path.partition("?")[0] == "/v1/workers"
    assert (done.returncode, done.stderr) == (0, note)
    return done.stdout.splitlines()


def test_who_holds_what_and_how_fast(here: Here, env: dict[str, str], running: Job) -> None:
    document = json.loads(here("workers", "-o", "json", env=env).stdout)
    (worker,) = document
    assert (worker["state"], worker["device"], worker["queues"], worker["busy"]) == ("live", "cpu", ["default"], 1)
    assert {"traind", "torch", "python"} <= worker["versions"].keys()
    (held,) = worker["jobs"]
    assert (held["id"], held["attempt"], held["total_steps"]) == (running.id, 1, running.progress.total_steps)
    assert held["rate_steps_per_second"] > 0
    assert 0 < held["lease_left_seconds"] <= 60
    header, row = here("workers", env=env).stdout.splitlines()
    assert header.split()[:4] == ["id", "name", "state", "device"]
    assert [worker["id"], worker["name"], "live", "cpu", "default"] == row.split()[:5]
    assert running.id in row.split()


def test_an_idle_worker_has_a_line_and_two_jobs_have_two(here: Here) -> None:
    held = {"id": "j1", "attempt": 2, "phase": "train", "step": 5, "total_steps": 9, "rate_steps_per_second": 1234.5}
    busy = WORKER | {"busy": 2, "jobs": [held | {"lease_left_seconds": -3.0}]}
    idle = WORKER | {"name": "idle", "state": "silent", "seen_seconds": 80.0, "versions": {}}
    _, first, second, third = shown(here, [busy, idle])
    assert first.split()[-7:] == ["j1", "2", "train", "5/9", "1234", "ran", "out"]
    assert second.endswith("(another project's)")
    assert third.split()[1:3] == ["idle", "silent"]
    assert third.endswith("1 min 20 s")


def test_an_ill_worker_is_shown_with_what_is_wrong(here: Here) -> None:
    ill = WORKER | {"memory_bytes": 16_200_000_000, "name": "bad", "state": "ill", "trouble": "its disk is full"}
    _, line = shown(here, [ill], note="bad is ill: its disk is full\n")
    assert line.split()[1:3] == ["bad", "ill"]
    assert " 16.2 GB " in line


def test_data_that_a_worker_cannot_read_is_told(here: Here) -> None:
    lacking = WORKER | {"lacks": {"fashion_mnist": "its files are nowhere"}}
    shown(here, [lacking], note=f"{WORKER['name']} takes no job of fashion_mnist: its files are nowhere\n")


def test_a_check_is_no_job(here: Here) -> None:
    held = {"id": "019a9d2d-4a62", "kind": "verify", "step": 5, "total_steps": 9, "lease_left_seconds": 3.0}
    _, line = shown(here, [WORKER | {"busy": 1, "jobs": [held]}])
    assert " verify 019a9d2d-4a62 " in line


def test_stopped_ones_are_asked_for_with_all(here: Here) -> None:
    for arguments, wanted in (((), "stopped=false"), (("--all",), "stopped=true")):
        with scripted(answer({"workers": []})) as service:
            here("workers", *arguments, env={"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"})
            assert wanted in service.seen[0].path


def test_a_name_cannot_steer_the_terminal(here: Here) -> None:
    assert "\x1b" not in "".join(shown(here, [WORKER | {"name": "\x1b[2J", "queues": ["\x07"]}]))


def test_no_workers_is_an_empty_table(here: Here) -> None:
    assert len(shown(here, [])) == 1
    assert shown(here, [], "-o", "json") == ["[]"]
