"""The only place where `job.state` is assigned.

Each move is looked up in `jobs.states.TRANSITIONS`, raises the job's version and writes its event in the same
transaction. The caller holds the job's row lock.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert, update
from sqlalchemy.dialects import postgresql

from jobs.documents import pack
from jobs.lifecycle.caller import created_by, signature
from jobs.lifecycle.lease import AnyRow, clock
from jobs.states import FINAL, Request, State, transition
from jobs.tables import job, job_event

_HELD = ("lease_token", "lease_until", "worker_id", "backend_pid", "lockless_since", "phase")
"""What a job has only while it runs."""


def enter(conn: Connection, job_id: UUID, **values: Any) -> bool:
    """Insert a new job and its event; False, and nothing written, where its idempotency key is taken."""
    first = transition(None, State.QUEUED)
    row = postgresql.insert(job).values(id=job_id, state=first.target, created_by=created_by(conn), **values)
    unique = row.on_conflict_do_nothing(index_elements=["project_id", "idempotency_key"])
    if conn.execute(unique.returning(job.c.id)).one_or_none() is None:
        return False
    _write_event(conn, job_id, 0, first.event, {}, to_state=first.target)
    return True


def move(conn: Connection, row: AnyRow, target: State, data: dict[str, Any], **values: Any) -> None:
    """Move the locked job to `target`, setting the columns `values` too, with `data` in the event.

    Raises KeyError where TRANSITIONS has no such move.
    """
    step = transition(State(row.state), target)
    changes: dict[str, Any] = {"version": job.c.version + 1, "updated_at": clock()}
    if step.source is State.RUNNING:
        changes |= dict.fromkeys(_HELD) | {"requested": Request.NONE}
    if target in FINAL:
        changes["finished_at"] = clock()
    elif step.source in FINAL:
        changes |= {"finished_at": None, "error": None}
    conn.execute(update(job).where(job.c.id == row.id).values(state=target, **(changes | values)))
    attempt = values.get("attempt", row.attempt)
    _write_event(conn, row.id, attempt, step.event, data, from_state=step.source, to_state=target)


def note(conn: Connection, row: AnyRow, kind: str, data: dict[str, Any]) -> None:
    """An event that moves nothing."""
    _write_event(conn, row.id, row.attempt, kind, data)


def _write_event(
    conn: Connection,
    job_id: UUID,
    attempt: int,
    kind: str,
    data: dict[str, Any],
    *,
    from_state: State | None = None,
    to_state: State | None = None,
) -> None:
    row = {"job_id": job_id, "attempt": attempt, "kind": kind, "from_state": from_state, "to_state": to_state}
    conn.execute(insert(job_event).values(**row, data=pack(data | signature(conn))))
