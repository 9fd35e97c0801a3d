"""What cancel, pause, resume and retry have in common: the job, its state as users see it, and who asked last.

The answer of a verb that was obeyed may have been lost, so a repeat answers the same and changes nothing, as long as it
can be told from a new request. Cancel and pause are recognised by the state they lead to. A job that runs or waits does
not show that it was resumed or retried; there the record decides: it is a repeat where that verb was the last one
obeyed. Once that job has failed, another retry is a new one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, select, update

from jobs.errors import NotFound, StateConflict
from jobs.lifecycle.lease import AnyRow, clock
from jobs.lifecycle.transitions import note
from jobs.states import FULFILLED, VERBS, Kind, Request, ShownState, State, possible, shown
from jobs.tables import job, job_event

_OBEYED = ("cancel-requested", "cancelled", "pause-requested", "pause-withdrawn", "paused", "resumed", "retried")
"""Kinds of the events that a verb leaves."""


def find(conn: Connection, *, project_id: int, job_id: UUID) -> AnyRow:
    """The job's row, locked until the transaction ends. Raises NotFound for a check, or where this project has none."""
    row = _locked(conn, project_id, job_id, job.c.kind == Kind.TRAIN)
    if row is None:
        raise NotFound("job", job_id)
    return row


def find_check(conn: Connection, *, project_id: int, job_id: UUID) -> AnyRow:
    """As `find`, of a check."""
    row = _locked(conn, project_id, job_id, job.c.kind != Kind.TRAIN)
    if row is None:
        raise NotFound("check", job_id)
    return row


def _locked(conn: Connection, project_id: int, job_id: UUID, kind: ColumnElement[bool]) -> AnyRow | None:
    here = (job.c.id == job_id) & (job.c.project_id == project_id) & kind
    return conn.execute(select(job).where(here).with_for_update(key_share=True)).one_or_none()


def shown_state(row: AnyRow) -> ShownState:
    return shown(State(row.state), Request(row.requested))


def is_fulfilled(verb: str, state: ShownState, kind: Kind = Kind.TRAIN) -> bool:
    """Whether nothing is left to do. Raises StateConflict where `state` forbids the verb."""
    if state in FULFILLED.get(verb, ()):
        return True
    if state not in VERBS[verb]:
        raise StateConflict(verb, "job" if kind is Kind.TRAIN else "check", state, possible(state, kind))
    return False


def request(conn: Connection, row: AnyRow, wanted: Request, kind: str) -> None:
    """Set what is asked of the locked, running job, with an event of this kind."""
    changes = {"requested": wanted, "version": job.c.version + 1, "updated_at": clock()}
    conn.execute(update(job).where(job.c.id == row.id).values(changes))
    note(conn, row, kind, {})


def last_obeyed(conn: Connection, job_id: UUID) -> tuple[str | None, dict[str, Any]]:
    """Kind and data of the event that the last verb left; None and nothing where there is none."""
    e = job_event.c
    query = select(e.kind, e.data).where(e.job_id == job_id, e.kind.in_(_OBEYED)).order_by(e.id.desc()).limit(1)
    row = conn.execute(query).one_or_none()
    return (None, {}) if row is None else (row.kind, row.data)
