"""One job, and the list of a project's jobs: newest first, filtered, a page at a time."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select, tuple_

from jobs.documents import unpack_floats
from jobs.errors import BadCursor, NotFound
from jobs.queries.filters import Filter, conditions
from jobs.queries.waiting import WaitingFor, waiting_for
from jobs.states import Kind, Request, ShownState, State, shown
from jobs.tables import job


@dataclass(frozen=True)
class JobRow:
    """A job without what only its worker needs. `spec` and `resolved` are documents of traind.spec."""

    id: UUID
    project_id: int
    name: str | None
    labels: dict[str, str]
    optimizer: str
    spec: dict[str, Any]
    resolved: dict[str, Any]
    state: State
    requested: Request
    queue: str
    device: str
    priority: int
    phase: str | None
    attempt: int
    max_attempts: int
    crash_count: int
    observed_step: int
    """The newest step that was heard of; saved_step is that of the newest complete checkpoint."""
    saved_step: int | None
    total_steps: int
    resume_differences: list[str]
    """Why what it has trained may differ in its last bits from an uninterrupted run; empty for an exact resume."""
    summary: dict[str, Any]
    """Of the metrics: "last" and "best" by key; NaN and infinities are floats here."""
    error: dict[str, Any] | None
    memory_bytes: int | None
    """What its trainer is expected to need on a CPU, if that is known."""
    dataset: str | None
    """Name of the dataset that a worker must have; None of a job that an earlier release took in."""
    not_before: datetime
    """While queued: no worker takes it before."""
    created_by: dict[str, Any] | None
    """The key that submitted it, by id and name; None if that is not known."""
    version: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    waiting_for: WaitingFor | None = None
    """What a queued job waits for, if that is not its turn."""

    @property
    def stopped_early(self) -> bool:
        """Whether it succeeded by its rule of early stopping, before its last step."""
        return self.state is State.SUCCEEDED and bool(self.summary.get("stopped_early"))

    @property
    def shown_state(self) -> ShownState:
        return shown(self.state, self.requested)


@dataclass(frozen=True)
class JobPage:
    """Some jobs, newest first; `next_cursor` leads to the older ones, None where there are none."""

    jobs: tuple[JobRow, ...]
    next_cursor: str | None


_COLUMNS = [job.c[field.name] for field in fields(JobRow) if field.name != "waiting_for"]


def get_job(conn: Connection, project_id: int, job_id: UUID) -> JobRow:
    """Raises NotFound, also for a check (`queries.checks`)."""
    here = (job.c.id == job_id, job.c.project_id == project_id, job.c.kind == Kind.TRAIN)
    row = conn.execute(select(*_COLUMNS).where(*here)).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    return _explained(conn, [_job(row)])[0]


def list_jobs(
    conn: Connection,
    project_id: int,
    wanted: Filter | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> JobPage:
    """At most `limit` of the project's jobs that pass the filter, newest first. Raises BadCursor.

    `cursor` is the `next_cursor` of the page before; jobs that are submitted meanwhile neither shift nor repeat a page.
    """
    here = [job.c.project_id == project_id, job.c.kind == Kind.TRAIN, *conditions(wanted or Filter())]
    if cursor is not None:
        here.append(tuple_(job.c.created_at, job.c.id) < tuple_(*_decode_cursor(cursor)))
    newest = select(*_COLUMNS).where(*here).order_by(job.c.created_at.desc(), job.c.id.desc())
    rows = [_job(row) for row in conn.execute(newest.limit(limit + 1))]
    page = tuple(_explained(conn, rows[:limit]))
    return JobPage(page, _encode_cursor(page[-1]) if len(rows) > limit else None)


def _job(row: Row[Any]) -> JobRow:
    known = row._asdict()
    parsed = {"state": State(row.state), "requested": Request(row.requested), "summary": unpack_floats(row.summary)}
    return JobRow(**(known | parsed))


def _explained(conn: Connection, rows: list[JobRow]) -> list[JobRow]:
    why = waiting_for(conn, rows)
    return [replace(row, waiting_for=why[row.id]) if row.id in why else row for row in rows]


def _encode_cursor(row: JobRow) -> str:
    place = json.dumps([row.created_at.isoformat(), str(row.id)])
    return base64.urlsafe_b64encode(place.encode()).decode()


def _decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, job_id = json.loads(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
        place = datetime.fromisoformat(created_at), UUID(job_id)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadCursor from error
    if place[0].tzinfo is None:
        raise BadCursor
    return place
