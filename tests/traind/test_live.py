"""The progress board: what it says of a job that cannot start."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from traind.cli.job_table import job_table
from traind.cli.live import Board
from traind.client import Job

QUEUED: dict[str, Any] = {
    "id": "0190a0d2-7c00-7000-8000-000000000000",
    "state": "queued",
    "spec": {},
    "created_at": "2026-01-01T00:00:00Z",
}
WAITS = QUEUED | {"waiting_for": {"reason": "device", "message": "no live worker has \x1b[1mcuda", "until": None}}


def test_a_job_that_no_worker_can_take_gets_a_line_when_that_is_known() -> None:
    out = io.StringIO()
    with Board(Console(file=out, width=200)) as board:
        for document in (QUEUED, QUEUED, WAITS, WAITS, QUEUED):
            board.update(Job.model_validate(document))
    plain, waits, again = out.getvalue().splitlines()
    assert ("waiting" in plain, "waiting" in again) == (False, False)
    assert "queued (waiting: device)" in waits
    assert "no live worker has �[1mcuda" in waits


def test_a_job_whose_checkpoints_are_not_taken_in_says_so() -> None:
    out = io.StringIO()
    running = QUEUED | {"state": "running", "phase": "train", "progress": {"step": 7}}
    full = running | {"progress": {"step": 7, "no_room": "the database's disk has 1 byte free"}}
    with Board(Console(file=out, width=200)) as board:
        for document in (running, full, full | {"phase": "checkpoint"}, running):
            board.update(Job.model_validate(document))
    before, during, after = out.getvalue().splitlines()
    assert ("no room" in before, "no room" in after) == (False, False)
    assert "running (no room for checkpoints)" in during


def test_every_line_names_its_job_where_there_are_several() -> None:
    out = io.StringIO()
    with Board(Console(file=out, width=200), several=True) as board:
        for last in "12":
            board.update(Job.model_validate(QUEUED | {"id": QUEUED["id"][:-1] + last, "name": "twin"}))
    assert [line.split()[:2] for line in out.getvalue().splitlines()] == [["00000001", "twin"], ["00000002", "twin"]]


def test_the_list_says_it_too(capsys: Any) -> None:
    job_table([WAITS])
    assert "queued (waiting: device)" in capsys.readouterr().out
