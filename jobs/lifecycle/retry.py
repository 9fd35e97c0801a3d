"""Retry of a job that failed or was cancelled: from its last checkpoint, or over again. Called by the api.

To start over is a wish in `job.restart` until the next attempt begins; from the retry on, nothing of the earlier
attempts is in the job's one line of history. After the commit the api rings the doorbell.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, update

from jobs.lifecycle.asked import find, is_fulfilled, last_obeyed, shown_state
from jobs.lifecycle.checkpoints import resume_point
from jobs.lifecycle.lease import clock
from jobs.lifecycle.transitions import move
from jobs.states import ShownState, State
from jobs.tables import job

Start = Literal["checkpoint", "start"]


def retry(conn: Connection, *, project_id: int, job_id: UUID, start: Start = "checkpoint") -> ShownState:
    """Let the job wait for a worker again, its crashes forgotten. Repeating it with the same `start` changes nothing.

    Raises NotFound, or StateConflict for a job that neither failed nor was cancelled.
    """
    row = find(conn, project_id=project_id, job_id=job_id)
    state = shown_state(row)
    if state in (ShownState.QUEUED, ShownState.RUNNING):
        kind, data = last_obeyed(conn, job_id)
        if (kind, data.get("from")) == ("retried", start):
            return state
    is_fulfilled("retry", state)
    conn.execute(update(job).where(job.c.id == job_id).values(restart=start == "start"))
    point = resume_point(conn, job_id)
    event = {"from": start, "step": point.step}
    move(conn, row, State.QUEUED, event, crash_count=0, not_before=clock(), **point.columns())
    return ShownState.QUEUED
