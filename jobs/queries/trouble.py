"""What an operator should know of all projects' jobs: what is stuck, and how large checkpoints are. For doctor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Double, func, select

from jobs.lifecycle.checkpoints import NO_ROOM
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


@dataclass(frozen=True)
class TooLarge:
    """Jobs that are due in one queue for one device, and need more memory than any live worker there has."""

    queue: str
    device: str
    n_jobs: int
    needed_bytes: int
    """By the one that needs the most."""
    largest_bytes: int
    """Of a worker."""


@dataclass(frozen=True)
class Unread:
    """Jobs that are due in one queue for one device, of a dataset that no live worker there can read."""

    queue: str
    device: str
    dataset: str
    n_jobs: int
    why: str
    """As one of the workers says it."""


def overdue(conn: Connection) -> list[Overdue]:
    """Running jobs whose lease ran out and that nobody took."""
    late = func.extract("epoch", clock() - job.c.lease_until).cast(Double)
    running = (job.c.state == State.RUNNING) & (job.c.lease_until < after(-LATE_SECONDS))
    return [Overdue(*row) for row in conn.execute(select(job.c.id, late).where(running).order_by(late.desc()))]


def unserved(conn: Connection, workers: Collection[WorkerRow]) -> list[Waiting]:
    """What waits for a worker that none of the live ones among `workers` is."""
    oldest = func.extract("epoch", clock() - func.min(job.c.created_at)).cast(Double)
    query = select(job.c.queue, job.c.device, func.count(), oldest).where(_due()).group_by(job.c.queue, job.c.device)
    waiting = [Waiting(*row) for row in conn.execute(query.order_by(job.c.queue, job.c.device))]
    return [each for each in waiting if not _serving(workers, each.queue, each.device)]


def too_large(conn: Connection, workers: Collection[WorkerRow]) -> list[TooLarge]:
    """What waits for a worker with more memory than the live ones among `workers` have."""
    found = []
    needs = select(job.c.queue, job.c.device, func.max(job.c.memory_bytes)).where(_due(), job.c.memory_bytes > 0)
    for queue, device, needed in conn.execute(
        needs.group_by(job.c.queue, job.c.device).order_by(job.c.queue, job.c.device)
    ).all():
        sizes = [worker.memory_bytes for worker in _serving(workers, queue, device)]
        known = [size for size in sizes if size is not None]
        if known and len(known) == len(sizes) and needed > max(known):
            here = (job.c.queue == queue) & (job.c.device == device) & (job.c.memory_bytes > max(known))
            n_jobs = conn.execute(select(func.count()).select_from(job).where(_due(), here)).scalar_one()
            found.append(TooLarge(queue, device, n_jobs, needed, max(known)))
    return found


def without_room(conn: Connection) -> str | None:
    """Why the last checkpoint of a running job is not taken in, though there may be room for smaller ones."""
    reason = job.c.summary[NO_ROOM].astext
    query = select(reason).where(job.c.state == State.RUNNING, reason.is_not(None)).order_by(job.c.id).limit(1)
    return conn.execute(query).scalar_one_or_none()


def unread(conn: Connection, workers: Collection[WorkerRow]) -> list[Unread]:
    """What waits for a worker with data that none of the live ones among `workers` has."""
    kind = (job.c.queue, job.c.device, job.c.dataset)
    query = select(*kind, func.count()).where(_due(), job.c.dataset.is_not(None)).group_by(*kind).order_by(*kind)
    found = []
    for queue, device, dataset, n_jobs in conn.execute(query):
        reasons = [worker.lacks.get(dataset) for worker in _serving(workers, queue, device)]
        told = [why for why in reasons if why is not None]
        if told and len(told) == len(reasons):
            found.append(Unread(queue, device, dataset, n_jobs, min(told)))
    return found


def _due() -> ColumnElement[bool]:
    return (job.c.state == State.QUEUED) & (job.c.not_before <= clock())


def _serving(workers: Collection[WorkerRow], queue: str, device: str) -> list[WorkerRow]:
    """The live ones that would take jobs of this queue for this device."""
    live = (worker for worker in workers if worker.state is WorkerState.LIVE)
    return [worker for worker in live if queue in worker.queues and device in (Device.AUTO, worker.device)]


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
