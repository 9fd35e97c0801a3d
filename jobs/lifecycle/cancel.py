"""Cancel: at once where the job waits, as a request to its worker where it runs. Called by the api.

After the commit the api sends `jobs.notify.notify_request`, so that a worker hears of it in milliseconds.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, select, update

from jobs.errors import NotFound, StateConflict
from jobs.lifecycle.lease import clock
from jobs.lifecycle.transitions import move, note
from jobs.states import FINAL, Request, State, possible
from jobs.tables import job


def request_cancel(conn: Connection, *, project_id: int, job_id: UUID) -> State | Literal["cancelling"]:
    """End the job, or ask its worker to. Repeating it changes nothing.

    Raises NotFound for a job that this project does not have, StateConflict for one that ended otherwise.
    """
    here = (job.c.id == job_id) & (job.c.project_id == project_id)
    row = conn.execute(select(job).where(here).with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    state = State(row.state)
    if state is State.CANCELLED:
        return state
    if state in FINAL:
        raise StateConflict("cancel", state, possible(state))
    if state is not State.RUNNING:
        move(conn, row, State.CANCELLED, {})
        return State.CANCELLED
    if row.requested != Request.CANCEL:
        changes = {"requested": Request.CANCEL, "version": job.c.version + 1, "updated_at": clock()}
        conn.execute(update(job).where(job.c.id == job_id).values(changes))
        note(conn, row, "cancel-requested", {})
    return "cancelling"
