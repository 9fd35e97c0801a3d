"""A worker's right to one attempt, and the fence that every write of a worker carries.

The token is the fence; the attempt number is for people and for the cut between attempts' metrics. A write whose
fence matches holds the job's row lock until it commits, so the attempt cannot be taken away in between.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, DateTime, Row, and_, func, select

from jobs.errors import Fenced
from jobs.states import State
from jobs.tables import job

__all__ = ["AnyRow", "Fenced", "Lease", "after", "clock", "fence", "fenced", "holder_name", "lease_lock_key", "lock"]


AnyRow = Row[*tuple[Any, ...]]


@dataclass(frozen=True)
class Lease:
    """One attempt of a job and the token that proves it is ours."""

    job_id: UUID
    attempt: int
    token: UUID


def clock() -> ColumnElement[datetime]:
    """The database's clock at this moment, not at the transaction's start."""
    return func.clock_timestamp(type_=DateTime(timezone=True))


def after(seconds: float) -> ColumnElement[datetime]:
    """`seconds` from now on the database's clock."""
    return clock() + timedelta(seconds=seconds)


def owned(lease: Lease) -> ColumnElement[bool]:
    """The attempt was not taken away, though the lease may have run out."""
    return and_(job.c.id == lease.job_id, job.c.lease_token == lease.token, job.c.state == State.RUNNING)


def fence(lease: Lease) -> ColumnElement[bool]:
    """The condition on the job row under which the holder may write."""
    return and_(owned(lease), job.c.lease_until > clock())


def fenced(lease: Lease) -> Fenced:
    return Fenced(f"attempt {lease.attempt} of job {lease.job_id} is no longer ours; nothing was written")


def lock(conn: Connection, lease: Lease) -> AnyRow:
    """The job's row, locked until the transaction ends. Raises Fenced."""
    row = conn.execute(select(job).where(fence(lease)).with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise fenced(lease)
    return row


def lease_lock_key(cluster_id: UUID, lease: Lease) -> int:
    """Key of the advisory lock that the holder's heartbeat connection has: signed, 64 bits."""
    name = f"{cluster_id}:{lease.job_id}:{lease.attempt}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def holder_name(worker_id: UUID) -> str:
    """application_name of a worker's heartbeat connection; the reaper ends no connection of another name."""
    return f"traind-holder-{worker_id}"
