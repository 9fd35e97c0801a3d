"""Claim: the best due job becomes a new attempt of this worker. Called by the worker.

Crashed jobs come first, then higher priority, then the older one. The device and the thread count that the spec
left open are fixed by the first claim, because they change bits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Connection, Select, and_, func, insert, or_, select, true, union_all

from jobs.catalog.cost import threads_worth
from jobs.lifecycle.check import Task, task_of
from jobs.lifecycle.checkpoints import CheckpointRef, ResumePoint, resume_point
from jobs.lifecycle.lease import AnyRow, Lease, after, clock
from jobs.lifecycle.transitions import move
from jobs.states import State
from jobs.tables import attempt, job
from traind.spec import Device, JobSpec, Resolved

HEAD_ROWS = 100
"""Best rows per queue that one claim looks at: more than there are claims in the same moment, each locking one."""


@dataclass(frozen=True)
class Claim:
    """An attempt that is now ours: what to train, and from where."""

    lease: Lease
    worker_id: UUID
    spec: JobSpec
    resolved: Resolved
    """With device and threads fixed."""
    from_step: int
    checkpoint: CheckpointRef | None
    check: Task | None = None
    """What to replay and compare; None for a job that trains."""


def claim(
    conn: Connection,
    *,
    worker_id: UUID,
    queues: Sequence[str],
    device: Literal["cpu", "cuda"],
    threads: int | None,
    cores: int = 1,
    memory_bytes: int | None = None,
    lacks: Collection[str] = (),
    lease_seconds: float,
) -> Claim | None:
    """Take the best due job, or None. A job that does not say gets `threads`, if that is given, else as many of the
    worker's `cores` as its steps are worth. Left to others are those expected to need more than `memory_bytes`,
    and those of datasets that the worker `lacks`.

    The caller must `hold` the lease within some seconds, before anything computes (see `reap`).
    """
    row = conn.execute(best_due(queues, device, memory_bytes, lacks)).one_or_none()
    if row is None:
        return None
    lease = Lease(row.id, row.attempt + 1, uuid4())
    spec = JobSpec.model_validate(row.spec)
    resolved = _fix(Resolved.model_validate(row.resolved), spec, device, threads=threads, cores=cores)
    check = task_of(conn, row)
    point = ResumePoint(check.origin) if check else resume_point(conn, row.id)
    claimed = Claim(lease, worker_id, spec, resolved, point.step, point.checkpoint, check)
    _start(conn, row, claimed, point, lease_seconds)
    return claimed


def best_due(
    queues: Sequence[str], device: str, memory_bytes: int | None = None, lacks: Collection[str] = ()
) -> Select[*tuple[Any, ...]]:
    """The query for the row to claim: one scan of the index ix_job_due per queue, merged in their common order.

    Postgres reads and locks row by row until one is free, so only the row that is returned stays locked.
    """
    order = (job.c.crash_count > 0).desc(), job.c.priority.desc(), job.c.created_at, job.c.id
    columns = job.c.id, (job.c.crash_count > 0).label("crashed"), job.c.priority, job.c.created_at
    scans = [
        select(
            select(*columns)
            .where(_due(queue, device, memory_bytes, lacks))
            .order_by(*order)
            .limit(HEAD_ROWS)
            .subquery()
        )
        for queue in dict.fromkeys(queues)
    ]
    found = union_all(*scans).subquery("found")
    return (
        select(job)
        .join(found, found.c.id == job.c.id)
        .where(job.c.state == State.QUEUED, job.c.not_before <= clock())  # judged again on a row that has changed
        .order_by(found.c.crashed.desc(), found.c.priority.desc(), found.c.created_at, found.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True, of=job)
    )


def has_due(
    conn: Connection,
    queues: Sequence[str],
    device: Literal["cpu", "cuda"],
    memory_bytes: int | None = None,
    lacks: Collection[str] = (),
) -> bool:
    """Whether a worker of these queues, this device, this memory and without these datasets would find a job now."""
    return conn.execute(
        select(or_(*(select(job.c.id).where(_due(queue, device, memory_bytes, lacks)).exists() for queue in queues)))
    ).scalar_one()


def _due(queue: str, device: str, memory_bytes: int | None, lacks: Collection[str]) -> ColumnElement[bool]:
    fits = true() if memory_bytes is None else or_(job.c.memory_bytes.is_(None), job.c.memory_bytes <= memory_bytes)
    # coalesce hides the column's statistics, by which Postgres would sort where few jobs are left
    readable = func.coalesce(job.c.dataset, "").not_in(sorted(lacks)) if lacks else true()
    return and_(
        job.c.state == State.QUEUED,
        job.c.queue == queue,
        job.c.device.in_([Device.AUTO, device]),
        job.c.not_before <= clock(),
        fits,
        readable,
    )


def _fix(
    resolved: Resolved, spec: JobSpec, device: Literal["cpu", "cuda"], *, threads: int | None, cores: int
) -> Resolved:
    fixed = {
        "device": resolved.device or device,
        "threads": resolved.threads or spec.training.threads or threads or threads_worth(spec, resolved, cores),
    }
    return resolved.model_copy(update=fixed)


def _start(conn: Connection, row: AnyRow, claimed: Claim, point: ResumePoint, lease_seconds: float) -> None:
    number, from_step = claimed.lease.attempt, claimed.from_step
    origin = claimed.checkpoint.id if claimed.checkpoint else None
    move(
        conn,
        row,
        State.RUNNING,
        {"worker": str(claimed.worker_id), "from_step": from_step, "checkpoint": origin},
        attempt=number,
        lease_token=claimed.lease.token,
        lease_until=after(lease_seconds),
        worker_id=claimed.worker_id,
        device=claimed.resolved.device,
        resolved=claimed.resolved.model_dump(mode="json"),
        restart=False,
        started_at=func.coalesce(job.c.started_at, clock()),
        **point.columns(),
    )
    conn.execute(
        insert(attempt).values(
            job_id=row.id,
            number=number,
            lease_token=claimed.lease.token,
            worker_id=claimed.worker_id,
            from_step=from_step,
            from_checkpoint_id=origin,
        )
    )
