"""Why a queued job does not start, if the reason is not that all workers are busy. Called by `jobs.queries.jobs`.

Told from the table of workers in one query for all jobs of a page, and in none if no job is queued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, Protocol
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, select

from jobs.catalog.memory import gigabytes
from jobs.lifecycle.lease import after, clock
from jobs.lifecycle.workers import SEEN_SECONDS
from jobs.states import State
from jobs.tables import worker
from traind.spec import Device, JobSpec, Resolved

SILENT_SECONDS = 4 * SEEN_SECONDS
"""A worker that was not seen for so long is silent: frozen, cut off, or dead."""


LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Waiting(StrEnum):
    """What a queued job waits for."""

    WORKER = "worker"
    QUEUE = "queue"
    DEVICE = "device"
    MEMORY = "memory"
    DATASET = "dataset"
    HEALTH = "health"
    BACK_OFF = "back-off"


@dataclass(frozen=True)
class WaitingFor:
    """The reason, in a word and in a sentence; `until` for a back-off."""

    reason: Waiting
    message: str
    until: datetime | None = None


class Waiter(Protocol):
    """What is read of a job here."""

    @property
    def id(self) -> UUID: ...
    @property
    def state(self) -> State: ...
    @property
    def queue(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def memory_bytes(self) -> int | None: ...
    @property
    def dataset(self) -> str | None: ...
    @property
    def not_before(self) -> datetime: ...


Kinds = Sequence[Row[Any]]
Condition = tuple[Waiting, Callable[[Row[Any]], bool], Callable[[Kinds], str]]


def waiting_for(conn: Connection, jobs: Sequence[Waiter]) -> dict[UUID, WaitingFor]:
    """What each queued job of `jobs` waits for; a job that only waits for its turn is not among the keys."""
    queued = [job for job in jobs if job.state is State.QUEUED]
    if not queued:
        return {}
    live = conn.execute(_live()).all()
    told = ((job.id, _why(job, live)) for job in queued)
    return {job_id: why for job_id, why in told if why is not None}


@dataclass(frozen=True)
class _Planned:
    """A job as it would be, were it submitted now."""

    id: UUID
    queue: str
    device: str
    memory_bytes: int | None
    dataset: str
    state: State = State.QUEUED
    not_before: datetime = LONG_AGO


def would_wait_for(conn: Connection, spec: JobSpec, resolved: Resolved) -> WaitingFor | None:
    """What a job with this spec would wait for, if that is not its turn."""
    resources = spec.resources
    job = _Planned(uuid4(), str(resources.queue), resources.device, resolved.memory_bytes, spec.dataset.name)
    return waiting_for(conn, [job]).get(job.id)


def _live() -> Any:
    """The kinds of workers that are alive, not each of them; `now` is the clock of `not_before`."""
    can = (worker.c.queues, worker.c.device, worker.c.memory_bytes, worker.c.lacks)
    kind = (*can, worker.c.trouble.is_(None).label("healthy"))
    seen = worker.c.stopped_at.is_(None) & (worker.c.last_seen_at > after(-SILENT_SECONDS))
    return select(*kind, clock().label("now")).where(seen).group_by(*kind)


def _why(job: Waiter, live: Kinds) -> WaitingFor | None:
    if not live:
        return WaitingFor(Waiting.WORKER, "no worker is alive")
    able = live
    for reason, able_to, message in _conditions(job):
        left = [kind for kind in able if able_to(kind)]
        if not left:
            return WaitingFor(reason, message(able))
        able = left
    if job.not_before > live[0].now:
        return WaitingFor(Waiting.BACK_OFF, "it waits for a while after its last attempt", job.not_before)
    return None


def _conditions(job: Waiter) -> Iterator[Condition]:
    """What a worker needs to take the job; the message, about those that meet all before, says that none has it."""
    queue, device = job.queue, job.device
    yield Waiting.QUEUE, lambda kind: queue in kind.queues, lambda _: f"no live worker listens to the queue {queue}"
    yield (
        Waiting.DEVICE,
        lambda kind: device in (Device.AUTO, kind.device),
        lambda _: f"no live worker of the queue {queue} has the device {device}",
    )
    yield Waiting.MEMORY, partial(_has_memory, job.memory_bytes), partial(_too_small, job.memory_bytes)
    yield Waiting.DATASET, lambda kind: job.dataset not in kind.lacks, partial(_unread, job.dataset)
    ill = "every worker that could take it is ill; `traind workers` says why"
    yield Waiting.HEALTH, lambda kind: kind.healthy, lambda _: ill


def _has_memory(needed: int | None, kind: Row[Any]) -> bool:
    """A worker that does not say how much it has takes any job."""
    return needed is None or kind.memory_bytes is None or needed <= kind.memory_bytes


def _unread(dataset: str | None, able: Kinds) -> str:
    why = min(kind.lacks[dataset] for kind in able)
    return f"no live worker that could take it can read {dataset}: {why}"


def _too_small(needed: int | None, able: Kinds) -> str:
    largest = gigabytes(max(kind.memory_bytes for kind in able))
    return f"it needs about {gigabytes(needed or 0)} of memory; the largest worker that could take it has {largest}"
