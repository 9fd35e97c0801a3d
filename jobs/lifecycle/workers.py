"""The list of worker processes, for people; no decision rests on it. Called by the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, select, update

from jobs.documents import clean_text
from jobs.lifecycle.lease import after, clock
from jobs.states import State
from jobs.tables import attempt, job, worker

SEEN_SECONDS = 5.0
"""How often a worker says that it is alive."""
LOST_SECONDS = 3_600.0
FORGET_SECONDS = 30 * 86_400.0
MOST_AT_ONCE = 20
MOST_TROUBLE_CHARACTERS = 2_000


def register_worker(
    conn: Connection,
    *,
    worker_id: UUID,
    name: str,
    device: Literal["cpu", "cuda"],
    queues: Sequence[str],
    slots: int = 1,
    versions: Mapping[str, str],
    memory_bytes: int | None = None,
    lacks: Mapping[str, str] | None = None,
) -> None:
    """Enter a worker process that starts; it must be there before its first claim.

    `memory_bytes`: what its trainers may use, if that is known. `lacks`: the datasets that it cannot read, and why.
    """
    row = {"id": worker_id, "name": name, "device": device, "queues": list(queues), "slots": slots}
    row |= {"versions": dict(versions), "memory_bytes": memory_bytes, "lacks": _reasons(lacks)}
    conn.execute(insert(worker).values(row))


def see_worker(
    conn: Connection, worker_id: UUID, *, trouble: str | None = None, lacks: Mapping[str, str] | None = None
) -> None:
    """The worker is alive; `trouble` says why it claims nothing, if it is ill; `lacks` as when it was entered."""
    told = None if trouble is None else _reason(trouble)
    changes = {"last_seen_at": clock(), "stopped_at": None, "trouble": told, "lacks": _reasons(lacks)}
    conn.execute(update(worker).where(worker.c.id == worker_id).values(changes))


def _reasons(lacks: Mapping[str, str] | None) -> dict[str, str]:
    return {name: _reason(why) for name, why in (lacks or {}).items()}


def _reason(text: str) -> str:
    return clean_text(text)[:MOST_TROUBLE_CHARACTERS]


def stop_worker(conn: Connection, worker_id: UUID) -> None:
    """The worker stopped as it should."""
    conn.execute(update(worker).where(worker.c.id == worker_id).values(last_seen_at=clock(), stopped_at=clock()))


def tidy_workers(conn: Connection) -> tuple[int, int]:
    """One round of tidying the list; how many workers were entered as stopped, and how many were forgotten.

    A worker that says no more and holds no job is stopped after LOST_SECONDS; should it come back, `see_worker` says
    so. One that stopped FORGET_SECONDS ago is forgotten, unless an attempt names it. Safe beside other callers, and
    nothing is left half done.
    """
    silent = (worker.c.stopped_at.is_(None)) & (worker.c.last_seen_at < after(-LOST_SECONDS))
    held = select(job.c.id).where(job.c.worker_id == worker.c.id, job.c.state == State.RUNNING).exists()
    lost = _some(silent & ~held)
    stopped = update(worker).where(worker.c.id.in_(lost)).values(stopped_at=worker.c.last_seen_at)
    n_stopped = conn.execute(stopped).rowcount
    attempted = select(attempt.c.job_id).where(attempt.c.worker_id == worker.c.id).exists()
    ancient = _some((worker.c.stopped_at < after(-FORGET_SECONDS)) & ~attempted)
    return n_stopped, conn.execute(delete(worker).where(worker.c.id.in_(ancient))).rowcount


def _some(condition: ColumnElement[bool]) -> Select[UUID]:
    """Ids of such workers, their rows locked; each deleted one costs a search through the attempts."""
    return select(worker.c.id).where(condition).limit(MOST_AT_ONCE).with_for_update(skip_locked=True)
