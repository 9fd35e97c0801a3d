"""Cancel: at once where the job waits, as a request to its worker where it runs. Called by the api.

After the commit the api sends `jobs.notify.notify_request`, so that a worker hears of it in milliseconds.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from jobs.lifecycle.asked import find, is_fulfilled, request, shown_state
from jobs.lifecycle.transitions import move
from jobs.states import Request, ShownState, State


def request_cancel(conn: Connection, *, project_id: int, job_id: UUID) -> ShownState:
    """End the job (cancelled), or ask its worker to (cancelling). Repeating it changes nothing.

    Raises NotFound for a job that this project does not have, StateConflict for one that ended otherwise.
    """
    row = find(conn, project_id=project_id, job_id=job_id)
    state = shown_state(row)
    if is_fulfilled("cancel", state):
        return state
    if row.state == State.RUNNING:
        request(conn, row, Request.CANCEL, "cancel-requested")
        return ShownState.CANCELLING
    move(conn, row, State.CANCELLED, {})
    return ShownState.CANCELLED
