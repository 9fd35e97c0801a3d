"""The list of workers: who is there, and what each holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Double, Row, Select, case, func, select

from jobs.documents import unpack_floats
from jobs.lifecycle.lease import clock
from jobs.queries.waiting import SILENT_SECONDS
from jobs.states import Kind, State
from jobs.tables import job, worker


class WorkerState(StrEnum):
    LIVE = "live"
    ILL = "ill"
    SILENT = "silent"
    STOPPED = "stopped"


@dataclass(frozen=True)
class HeldJob:
    """A running job or check and how far it is; `lease_left_seconds` is negative where the lease ran out."""

    id: UUID
    kind: Kind
    name: str | None
    attempt: int
    phase: str | None
    step: int
    total_steps: int
    rate_steps_per_second: float | None
    lease_left_seconds: float


@dataclass(frozen=True)
class WorkerRow:
    """A worker process. `busy` counts all jobs that it holds; `jobs` are those that the caller may know."""

    id: UUID
    name: str
    state: WorkerState
    device: str
    queues: tuple[str, ...]
    slots: int
    busy: int
    jobs: tuple[HeldJob, ...]
    versions: dict[str, str]
    started_at: datetime
    last_seen_at: datetime
    seen_seconds: float
    """How long ago that was, on the database's clock."""
    stopped_at: datetime | None
    trouble: str | None
    """Why it claims nothing, if it is ill."""
    memory_bytes: int | None
    """What its trainers may use, if it says."""
    lacks: dict[str, str]
    """The datasets that it cannot read, and why: it claims no job of them."""


def list_workers(
    conn: Connection, project_id: int | None, *, stopped: bool = False, limit: int = 1_000
) -> list[WorkerRow]:
    """At most `limit` workers: live, then ill, then silent and (if `stopped`) stopped ones, each newest first.

    Workers are of no project, their jobs are: of another's job nothing is told. None is for operators: all jobs.
    """
    state, shown = _state(), worker.c.stopped_at.is_(None)
    ranks = {WorkerState.LIVE: 0, WorkerState.ILL: 1, WorkerState.SILENT: 2}
    order = case(ranks, value=state, else_=3)
    newest = func.coalesce(worker.c.stopped_at, worker.c.started_at).desc()
    query = select(worker, state.label("state"), _seconds(clock() - worker.c.last_seen_at).label("seen"))
    query = query.order_by(order, newest, worker.c.id).limit(limit)
    rows = conn.execute(query if stopped else query.where(shown)).all()
    held = _held(conn, [row.id for row in rows])
    return [_worker(row, held.get(row.id, []), project_id) for row in rows]


def _state() -> ColumnElement[str]:
    silent = _seconds(clock() - worker.c.last_seen_at) > SILENT_SECONDS
    stopped = worker.c.stopped_at.is_not(None)
    ill = worker.c.trouble.is_not(None)
    known = ((stopped, WorkerState.STOPPED), (silent, WorkerState.SILENT), (ill, WorkerState.ILL))
    return case(*known, else_=WorkerState.LIVE)


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[float]:
    return func.extract("epoch", interval).cast(Double)


def _held(conn: Connection, worker_ids: Sequence[UUID]) -> dict[UUID, list[Row[Any]]]:
    j = job.c
    left = _seconds(j.lease_until - clock()).label("left")
    columns = (j.id, j.kind, j.name, j.project_id, j.worker_id, j.attempt, j.phase)
    query: Select[Any] = (
        select(*columns, j.observed_step, j.total_steps, j.summary, left)
        .where(j.state == State.RUNNING, j.worker_id.in_(worker_ids))
        .order_by(j.id)
    )
    held: dict[UUID, list[Row[Any]]] = {}
    for row in conn.execute(query):
        held.setdefault(row.worker_id, []).append(row)
    return held


def _worker(row: Row[Any], held: Sequence[Row[Any]], project_id: int | None) -> WorkerRow:
    return WorkerRow(
        id=row.id,
        name=row.name,
        state=WorkerState(row.state),
        device=row.device,
        queues=tuple(row.queues),
        slots=row.slots,
        busy=len(held),
        jobs=tuple(_job(each) for each in held if project_id in (None, each.project_id)),
        versions=row.versions,
        started_at=row.started_at,
        last_seen_at=row.last_seen_at,
        seen_seconds=max(0.0, row.seen),
        stopped_at=row.stopped_at,
        trouble=row.trouble,
        memory_bytes=row.memory_bytes,
        lacks=row.lacks,
    )


def _job(row: Row[Any]) -> HeldJob:
    return HeldJob(
        id=row.id,
        kind=Kind(row.kind),
        name=row.name,
        attempt=row.attempt,
        phase=row.phase,
        step=row.observed_step,
        total_steps=row.total_steps,
        rate_steps_per_second=unpack_floats(row.summary).get("rate"),
        lease_left_seconds=row.left,
    )
