"""The list of worker processes, for people; no decision rests on it. Called by the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, insert, update

from jobs.lifecycle.lease import clock
from jobs.tables import worker


def register_worker(
    conn: Connection,
    *,
    worker_id: UUID,
    name: str,
    device: Literal["cpu", "cuda"],
    queues: Sequence[str],
    slots: int = 1,
    versions: Mapping[str, str],
) -> None:
    """Enter a worker process that starts; it must be there before its first claim."""
    row = {"id": worker_id, "name": name, "device": device, "queues": list(queues), "slots": slots}
    conn.execute(insert(worker).values(**row, versions=dict(versions)))


def see_worker(conn: Connection, worker_id: UUID) -> None:
    """The worker is alive."""
    conn.execute(update(worker).where(worker.c.id == worker_id).values(last_seen_at=clock()))


def stop_worker(conn: Connection, worker_id: UUID) -> None:
    """The worker stopped as it should."""
    conn.execute(update(worker).where(worker.c.id == worker_id).values(last_seen_at=clock(), stopped_at=clock()))
