"""Checks: one, and those of a job. What they are is in `jobs.lifecycle.check`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select

from jobs.errors import NotFound
from jobs.queries.jobs import get_job
from jobs.states import Kind, Request, ShownState, State
from jobs.tables import check_run, job

_OF_RUN = {"subject_job_id", "checkpoint_id", "from_checkpoint_id", "from_step", "to_step", "result"}


@dataclass(frozen=True)
class CheckRow:
    """A check. Steps of both passes of an audit count in `observed_step` and `total_steps`."""

    id: UUID
    kind: Kind
    state: State
    requested: Request
    queue: str
    phase: str | None
    attempt: int
    subject_job_id: UUID
    checkpoint_id: int | None
    from_checkpoint_id: int | None
    """Where the replay starts; None for the job's start."""
    from_step: int
    to_step: int
    observed_step: int
    total_steps: int
    result: dict[str, Any] | None
    """None until it has succeeded."""
    error: dict[str, Any] | None
    created_by: dict[str, Any] | None
    version: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime

    @property
    def shown_state(self) -> ShownState:
        return ShownState.CANCELLING if self.requested is Request.CANCEL else ShownState(self.state)


_COLUMNS = [(check_run if field.name in _OF_RUN else job).c[field.name] for field in fields(CheckRow)]
_CHECKS = select(*_COLUMNS).join(check_run, check_run.c.id == job.c.id)


def get_check(conn: Connection, project_id: int, check_id: UUID) -> CheckRow:
    """Raises NotFound."""
    row = conn.execute(_CHECKS.where(job.c.id == check_id, job.c.project_id == project_id)).one_or_none()
    if row is None:
        raise NotFound("check", check_id)
    return _check(row)


def checks(conn: Connection, project_id: int, job_id: UUID, *, limit: int = 50) -> list[CheckRow]:
    """At most `limit` checks of a job, newest first. Raises NotFound where there is no such job."""
    get_job(conn, project_id, job_id)
    newest = _CHECKS.where(check_run.c.subject_job_id == job_id).order_by(check_run.c.id.desc())
    return [_check(row) for row in conn.execute(newest.limit(limit))]


def _check(row: Row[Any]) -> CheckRow:
    parsed = {"kind": Kind(row.kind), "state": State(row.state), "requested": Request(row.requested)}
    return CheckRow(**(row._asdict() | parsed))
