"""Cancel: at once where the job waits, as a request to its worker where it runs. Called by the api.

A worker that let its lease run out is not asked: there may be none left that would see to it.

After the commit the api sends `jobs.notify.notify_request`, so that a worker hears of it in milliseconds.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from jobs.lifecycle.asked import find, find_check, is_fulfilled, request, shown_state
from jobs.lifecycle.lease import AnyRow
from jobs.lifecycle.reap import end_if_expired
from jobs.lifecycle.transitions import move
from jobs.states import Kind, Request, ShownState, State


def request_cancel(conn: Connection, *, project_id: int, job_id: UUID) -> ShownState:
    """End the job (cancelled), or ask its worker to (cancelling). Repeating it changes nothing.

    Raises NotFound for a job that this project does not have, StateConflict for one that ended otherwise.
    """
    return _cancel(conn, find(conn, project_id=project_id, job_id=job_id))


def request_cancel_of_check(conn: Connection, *, project_id: int, job_id: UUID) -> ShownState:
    """As `request_cancel`, of a check."""
    return _cancel(conn, find_check(conn, project_id=project_id, job_id=job_id))


def _cancel(conn: Connection, row: AnyRow) -> ShownState:
    state = shown_state(row)
    done = is_fulfilled("cancel", state, Kind(row.kind))
    if row.state == State.RUNNING:
        if not done:
            request(conn, row, Request.CANCEL, "cancel-requested")
        return ShownState.CANCELLING if end_if_expired(conn, row.id) is None else ShownState.CANCELLED
    if done:
        return state
    move(conn, row, State.CANCELLED, {})
    return ShownState.CANCELLED
