"""What happened to a job: its events, its attempts, its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, select, true

from jobs.documents import unpack_floats
from jobs.errors import NotFound
from jobs.states import Kind, Outcome
from jobs.tables import attempt, blob, job, job_event
from jobs.tables import checkpoint as checkpoint_table
from jobs.visibility import cuts


@dataclass(frozen=True)
class EventRow:
    """One entry of a job's record; a transition has a to_state. Ids grow, but not by one."""

    id: int
    kind: str
    from_state: str | None
    to_state: str | None
    attempt: int
    data: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class AttemptRow:
    """One execution. `log` is the end of what its trainer printed; outcome is None while it runs."""

    number: int
    worker_id: UUID
    from_step: int
    from_checkpoint_id: int | None
    fingerprint: dict[str, Any] | None
    outcome: Outcome | None
    error: dict[str, Any] | None
    log: str | None
    started_at: datetime
    ended_at: datetime | None

    @property
    def resume_exact(self) -> bool | None:
        """Whether its fingerprint is its checkpoint's; None while that is unknown, or where it began at the start."""
        if self.fingerprint is None or self.from_checkpoint_id is None:
            return None
        return not self.fingerprint.get("differences")


@dataclass(frozen=True)
class BlobRow:
    """One of a checkpoint's two blobs: size in bytes; the hash is None until it is complete."""

    id: int
    size: int
    sha256: bytes | None


@dataclass(frozen=True)
class CheckpointRow:
    """A saved training state: `model` holds the weights alone, `state` the rest. Readable when complete.

    `damage` is what was found wrong with it when an attempt was to start from it.
    """

    id: int
    job_id: UUID
    attempt: int
    step: int
    kind: str
    complete: bool
    pinned: bool
    damage: str | None
    model: BlobRow
    state: BlobRow
    summary: dict[str, Any]
    """The job's summary at that step; NaN and infinities are floats here."""
    created_at: datetime
    completed_at: datetime | None


def events(conn: Connection, project_id: int, job_id: UUID, *, after: int = 0, limit: int = 100) -> list[EventRow]:
    """At most `limit` events with an id above `after`, oldest first. Raises NotFound."""
    _require(conn, project_id, job_id)
    e = job_event.c
    columns = (e.id, e.kind, e.from_state, e.to_state, e.attempt, e.data, e.created_at)
    query = select(*columns).where(e.job_id == job_id, e.id > after).order_by(e.id).limit(limit)
    return [EventRow(*row) for row in conn.execute(query)]


def attempts(conn: Connection, project_id: int, job_id: UUID) -> list[AttemptRow]:
    """All attempts, the first one first. Raises NotFound."""
    _require(conn, project_id, job_id)
    return [_attempt(row) for row in conn.execute(select(attempt).where(attempt.c.job_id == job_id).order_by("number"))]


def checkpoints(
    conn: Connection, project_id: int, job_id: UUID, *, attempts: Literal["visible", "all"] = "visible"
) -> list[CheckpointRow]:
    """The complete checkpoints that still count (`jobs.visibility`), by step. Raises NotFound.

    "all" adds those beyond a later attempt's start, and those that are still being uploaded.
    """
    _require(conn, project_id, job_id)
    c, cut = checkpoint_table.c, cuts(job_id)
    counts = (c.complete & (c.step <= cut.c.cut)) if attempts == "visible" else true()
    query = _checkpoints(counts, c.job_id == job_id).join(cut, cut.c.number == c.attempt)
    return [_checkpoint(row) for row in conn.execute(query.order_by(c.step, c.attempt))]


def checkpoint(conn: Connection, project_id: int, checkpoint_id: int) -> CheckpointRow:
    """One checkpoint, whether or not it still counts or is complete. Raises NotFound."""
    own = job.c.id == checkpoint_table.c.job_id, job.c.project_id == project_id
    row = conn.execute(_checkpoints(checkpoint_table.c.id == checkpoint_id, *own)).one_or_none()
    if row is None:
        raise NotFound("checkpoint", checkpoint_id)
    return _checkpoint(row)


def _require(conn: Connection, project_id: int, job_id: UUID) -> None:
    own = (job.c.id == job_id) & (job.c.project_id == project_id) & (job.c.kind == Kind.TRAIN)
    if conn.execute(select(job.c.id).where(own)).one_or_none() is None:
        raise NotFound("job", job_id)


def _attempt(row: Row[Any]) -> AttemptRow:
    known = {field.name: getattr(row, field.name) for field in fields(AttemptRow)}
    return AttemptRow(**(known | {"outcome": None if row.outcome is None else Outcome(row.outcome)}))


def _checkpoints(*conditions: ColumnElement[bool]) -> Select[Any]:
    model, state = blob.alias("model"), blob.alias("state")
    blobs = (
        column.label(f"{part}_{column.name}")
        for part, table in (("model", model), ("state", state))
        for column in (table.c.size, table.c.sha256)
    )
    return (
        select(checkpoint_table, *blobs)
        .join(model, model.c.id == checkpoint_table.c.model_blob_id)
        .join(state, state.c.id == checkpoint_table.c.state_blob_id)
        .where(*conditions)
    )


def _checkpoint(row: Row[Any]) -> CheckpointRow:
    return CheckpointRow(
        id=row.id,
        job_id=row.job_id,
        attempt=row.attempt,
        step=row.step,
        kind=row.kind,
        complete=row.complete,
        pinned=row.pinned,
        damage=row.damage,
        model=BlobRow(row.model_blob_id, row.model_size, row.model_sha256),
        state=BlobRow(row.state_blob_id, row.state_size, row.state_sha256),
        summary=unpack_floats(row.summary),
        created_at=row.created_at,
        completed_at=row.completed_at,
    )
