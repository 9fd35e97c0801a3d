"""What an operator should know of all projects' jobs: what is stuck, and how large checkpoints are. For doctor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Double, func, select

from jobs.lifecycle.lease import after, clock
from jobs.queries.workers import WorkerRow, WorkerState
from jobs.states import State
from jobs.tables import blob, checkpoint, job
from traind.spec import Device

LATE_SECONDS = 5.0
"""A lease that ran out is taken within half a second, where anybody is there to take it."""
RECENT = timedelta(days=30)


@dataclass(frozen=True)
class Overdue:
    """A running job whose lease ran out, and how long ago."""

    id: UUID
    seconds: float


@dataclass(frozen=True)
class Waiting:
    """Jobs that are due in one queue for one device."""

    queue: str
    device: str
    n_jobs: int
    oldest_seconds: float


def overdue(conn: Connection) -> list[Overdue]:
    """Running jobs whose lease ran out and that nobody took."""
    late = func.extract("epoch", clock() - job.c.lease_until).cast(Double)
    running = (job.c.state == State.RUNNING) & (job.c.lease_until < after(-LATE_SECONDS))
    return [Overdue(*row) for row in conn.execute(select(job.c.id, late).where(running).order_by(late.desc()))]


def unserved(conn: Connection, workers: Collection[WorkerRow]) -> list[Waiting]:
    """What waits for a worker that none of the live ones among `workers` is."""
    oldest = func.extract("epoch", clock() - func.min(job.c.created_at)).cast(Double)
    due = (job.c.state == State.QUEUED) & (job.c.not_before <= clock())
    query = select(job.c.queue, job.c.device, func.count(), oldest).where(due).group_by(job.c.queue, job.c.device)
    waiting = [Waiting(*row) for row in conn.execute(query.order_by(job.c.queue, job.c.device))]
    live = [worker for worker in workers if worker.state is WorkerState.LIVE]
    return [each for each in waiting if not any(_serves(worker, each) for worker in live)]


def _serves(worker: WorkerRow, waiting: Waiting) -> bool:
    return waiting.queue in worker.queues and waiting.device in (Device.AUTO, worker.device)


def largest_checkpoint_bytes(conn: Connection) -> int:
    """Model and state of the largest checkpoint that was begun within RECENT; 0 where there is none."""
    model, state = blob.alias("model"), blob.alias("state")
    query = (
        select(func.coalesce(func.max(model.c.size + state.c.size), 0))
        .select_from(checkpoint)
        .join(model, model.c.id == checkpoint.c.model_blob_id)
        .join(state, state.c.id == checkpoint.c.state_blob_id)
        .where(checkpoint.c.created_at > clock() - RECENT)
    )
    return int(conn.execute(query).scalar_one())
