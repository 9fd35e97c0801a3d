"""Rows for tests that need a job or an attempt in a certain state, without going through its whole life."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Connection, func, update
from sqlalchemy.dialects.postgresql import insert

from jobs import tables
from jobs.ids import uuid7
from jobs.states import FINAL, State

DATASET = b"d" * 32


def add_job(conn: Connection, project_id: int, *, state: State = State.QUEUED, **values: Any) -> uuid.UUID:
    """A job of this state; other columns by name."""
    dataset = {"sha256": DATASET, "name": "digits", "n_train": 1_437, "n_validation": 360}
    conn.execute(insert(tables.dataset).values(dataset).on_conflict_do_nothing())
    row: dict[str, Any] = {
        "id": uuid7(),
        "project_id": project_id,
        "optimizer": "adam",
        "spec": {},
        "resolved": {},
        "dataset_sha256": DATASET,
        "state": state,
        "queue": "default",
        "device": "auto",
        "priority": 0,
        "max_attempts": 3,
        "total_steps": 100,
    }
    if state is State.RUNNING:
        row |= {"lease_token": uuid.uuid4(), "lease_until": func.clock_timestamp()}
    if state in FINAL:
        row["finished_at"] = func.clock_timestamp()
    if state is State.FAILED:
        row["error"] = {"code": "trainer-crashed", "message": "killed", "retryable": True}
    conn.execute(insert(tables.job).values(row | values))
    return (row | values)["id"]


def add_attempt(conn: Connection, job_id: uuid.UUID, number: int = 1, *, from_step: int = 0, **values: Any) -> None:
    """An attempt that runs; `end_attempt` ends it."""
    worker = uuid7()
    conn.execute(insert(tables.worker).values(id=worker, name="w", device="cpu", queues=["default"]))
    row = {"job_id": job_id, "number": number, "worker_id": worker, "from_step": from_step}
    conn.execute(insert(tables.attempt).values(row | {"lease_token": uuid.uuid4()} | values))


def end_attempt(conn: Connection, job_id: uuid.UUID, number: int = 1, *, outcome: str = "succeeded") -> None:
    own = (tables.attempt.c.job_id == job_id) & (tables.attempt.c.number == number)
    ended = {"outcome": outcome, "ended_at": func.clock_timestamp()}
    conn.execute(update(tables.attempt).where(own).values(ended))
