"""Several jobs at once: `traind watch` of ids and labels, and `traind cancel --label`."""

from __future__ import annotations

import io
import itertools
import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from rich.console import Console

from tests.traind.commands import Here
from tests.traind.scripted import answer, scripted
from tests.traind.test_cli_ls import IDS, job
from tests.traind.test_cli_service import ENDLESS, QUICK
from traind.cli.live import Board
from traind.client import Client, Job

NONE = answer({"jobs": [], "next_cursor": None})


def by_path(answers: dict[str, list[Any]]) -> Any:
    """Answers by the last part of the path, in turn; the last one is repeated."""
    left = {path: itertools.chain(documents, itertools.repeat(documents[-1])) for path, documents in answers.items()}

    def step(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0].rpartition("/")[2]
        answer(next(left[path]))(handler)

    return step


def env_of(service: Any) -> dict[str, str]:
    return {"TRAIND_URL": service.url, "TRAIND_API_KEY": "td_x"}


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["succeeded", "succeeded"], 0),
        (["succeeded", "cancelled"], 4),
        (["cancelled", "diverged", "succeeded"], 3),
        (["diverged", "failed", "cancelled", "succeeded"], 1),
    ],
)
def test_the_exit_code_is_the_worst_outcome(here: Here, states: list[str], code: int) -> None:
    running = [job(i, state="running", version=1) for i in range(len(states))]
    ended = [one | {"state": state, "version": 2} for one, state in zip(running, states, strict=True)]
    pages = {one["id"]: [one, done] for one, done in zip(running, ended, strict=True)}
    with scripted(by_path(pages)) as service:
        done = here("watch", *IDS[: len(states)], "-o", "json", env=env_of(service))
    assert done.returncode == code
    assert [one["state"] for one in json.loads(done.stdout)] == states


def test_one_id_is_one_object_and_a_label_an_array(here: Here) -> None:
    pages = {"jobs": [{"jobs": [job()], "next_cursor": None}], IDS[0]: [job()]}
    for arguments, kind in (((IDS[0],), dict), (("--label", "a=b"), list), ((IDS[0], "--label", "a"), list)):
        with scripted(by_path(pages)) as service:
            done = here("watch", *arguments, "-o", "json", env=env_of(service))
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), kind)


def test_what_each_job_failed_of_is_said_with_its_id(here: Here) -> None:
    error = {"code": "trainer-crashed", "message": "killed"}
    pages = {IDS[0]: [job()], IDS[1]: [job(1, state="failed", error=error)]}
    with scripted(by_path(pages)) as service:
        done = here("watch", *IDS[:2], env=env_of(service))
    assert f"{IDS[1]}: failed: killed (trainer-crashed)" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["id", *IDS[:2]]


@pytest.mark.parametrize("command", ["watch", "cancel"])
def test_without_a_job_it_is_wrong_usage(here: Here, command: str) -> None:
    with scripted(NONE) as service:
        nothing = here(command, env=env_of(service))
        twice = here(command, "--label", "a=b", "--label", "a=c", env=env_of(service))
        assert service.seen == []
    assert (nothing.returncode, twice.returncode) == (2, 2)
    assert "give ids of jobs, or --label KEY=VALUE" in nothing.stderr
    assert "cannot be both" in twice.stderr


def test_a_label_that_no_job_has(here: Here) -> None:
    with scripted(NONE) as service:
        watched = here("watch", "--label", "a=b", env=env_of(service))
        cancelled = here("cancel", "--label", "a=b", env=env_of(service))
    assert (watched.returncode, cancelled.returncode) == (2, 0)
    assert "no job has the label a=b" in watched.stderr
    assert "no job with the label a=b is left to cancel" in cancelled.stderr


def test_a_service_with_many(here: Here, env: dict[str, str], client: Client) -> None:
    label = ("--label", "many=yes")
    ended = here("submit", *QUICK, *label, env=env).stdout.strip()
    client.wait(ended, timeout_seconds=60)
    first, second = (here("submit", *ENDLESS, *label, env=env).stdout.strip() for _ in range(2))
    with pytest.raises(TimeoutError, match="1 of 2 jobs have not ended"):
        client.wait_all([ended, first], timeout_seconds=0.5)
    asked = here("cancel", *label, env=env)
    assert (asked.returncode, "say --yes" in asked.stderr) == (2, True)
    assert not client.get(second).final
    cancelled = here("cancel", *label, "--yes", "-o", "json", env=env)
    assert cancelled.returncode == 0
    assert [one["id"] for one in json.loads(cancelled.stdout)] == [first, second]
    watched = here("watch", *label, env=env)
    assert watched.returncode == 4
    assert [line.split()[0] for line in watched.stdout.splitlines()] == ["id", ended, first, second]
    assert here("watch", ended, first[-8:], env=env).returncode == 4


def test_a_board_shows_as_many_as_fit_and_counts_all() -> None:
    out = io.StringIO()
    states = ["succeeded"] * 5 + ["queued"] * 5 + ["running"] * 2
    with Board(Console(file=out, width=100, height=9, force_terminal=True)) as board:
        for i, state in enumerate(states):
            document = job(i % 10, state=state, name="twin") | {"id": IDS[0][:-2] + f"{i:02}"}
            board.update(Job.model_validate(document))
    drawn = out.getvalue().rpartition("job ")[2]
    assert drawn.index("f6d010") < drawn.index("f6d005"), "what runs is shown first"
    assert "f6d000" not in drawn, "what has ended gives way"
    assert "5 succeeded, 5 queued, 2 running" in drawn
