"""Pause and resume. Called by the api.

A job that waits is paused at once. One that runs is asked through its worker, which takes a checkpoint first; until
that is complete the request can be withdrawn by a resume. After the commit the api sends
`jobs.notify.notify_request` where a request was set or withdrawn, and rings the doorbell where the job waits again.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from jobs.lifecycle.asked import find, is_fulfilled, last_obeyed, request, shown_state
from jobs.lifecycle.lease import clock
from jobs.lifecycle.transitions import move
from jobs.states import Request, ShownState, State


def request_pause(conn: Connection, *, project_id: int, job_id: UUID) -> ShownState:
    """Hold the job (paused), or ask its worker to (pausing). Repeating it changes nothing.

    Raises NotFound for a job that this project does not have, StateConflict for one that ended or is being cancelled.
    """
    row = find(conn, project_id=project_id, job_id=job_id)
    state = shown_state(row)
    if is_fulfilled("pause", state):
        return state
    if state is ShownState.RUNNING:
        request(conn, row, Request.PAUSE, "pause-requested")
        return ShownState.PAUSING
    move(conn, row, State.PAUSED, {})
    return ShownState.PAUSED


def resume(conn: Connection, *, project_id: int, job_id: UUID) -> ShownState:
    """Let a paused job wait for a worker again (queued), or take the request to pause back (running).

    Repeating it changes nothing. A pause that is taken back too late, when the trainer has stopped already, leaves the
    job queued instead of paused. Raises NotFound, or StateConflict for a job that is not paused.
    """
    row = find(conn, project_id=project_id, job_id=job_id)
    state = shown_state(row)
    if state in (ShownState.QUEUED, ShownState.RUNNING):
        kind, _ = last_obeyed(conn, job_id)
        if kind in ("resumed", "pause-withdrawn"):
            return state
    is_fulfilled("resume", state)
    if state is ShownState.PAUSING:
        request(conn, row, Request.NONE, "pause-withdrawn")
        return ShownState.RUNNING
    move(conn, row, State.QUEUED, {}, not_before=clock())
    return ShownState.QUEUED
