"""Reap: attempts whose holder is gone go on without it. Called every half second by each worker; one at a time reaps;
and by a cancel, where there may be no worker.

Two signs: a lease that ran out, and an advisory lock that its holder's connection lost. The second is a suspicion
only: it is stamped (`lockless_since`) and believed after `suspicion_seconds`, and not within one lease of the
server's start, when every lock is gone, nor by a reaper whose own session is younger than that: what cut it off may
have cut the holder off too. A holder that was never seen with its lock gets ten times as long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, DateTime, case, func, literal_column, select, text, update

from jobs.lifecycle.crash import after_crash
from jobs.lifecycle.lease import AnyRow, Lease, clock, holder_name, lease_lock_key
from jobs.states import Outcome, State
from jobs.tables import job

MOST_AT_ONCE = 100
NEVER_HELD_FACTOR = 10

_HELD_KEYS = text("""
    SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
_OWN_SESSION_BEGAN = literal_column(
    "(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())", DateTime(timezone=True)
)
_TERMINATE = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = :pid AND application_name = :name AND datname = current_database() AND usename = current_user
""")


@dataclass(frozen=True)
class Reaped:
    """An attempt that was taken from its worker, why, and where its job went."""

    job_id: UUID
    attempt: int
    worker_id: UUID
    queue: str
    code: str
    """lease-expired or worker-lost."""
    state: State


def reap(conn: Connection, *, cluster_id: UUID, suspicion_seconds: float, lease_seconds: float) -> list[Reaped]:
    """One round, in one transaction; empty also where another reaper is at work."""
    if not conn.execute(select(func.pg_try_advisory_xact_lock(_reaper_key(cluster_id)))).scalar_one():
        return []
    _stamp(conn, cluster_id)
    suspects = _lock_suspects(conn, suspicion_seconds, lease_seconds)
    held = _held_keys(conn) if suspects else set()
    return [_take(conn, row) for row in suspects if row.expired or _key(cluster_id, row) not in held]


def end_if_expired(conn: Connection, job_id: UUID) -> State | None:
    """Take this running job from a worker that let its lease run out; where it went, None if its lease is good.

    The caller holds its row's lock.
    """
    expired = job.c.lease_until <= clock()
    row = conn.execute(select(job, expired.label("expired")).where(job.c.id == job_id)).one()
    return _take(conn, row).state if row.state == State.RUNNING and row.expired else None


def _reaper_key(cluster_id: UUID) -> int:
    return int.from_bytes(hashlib.sha256(f"{cluster_id}:reaper".encode()).digest()[:8], "big", signed=True)


def _key(cluster_id: UUID, row: AnyRow) -> int:
    return lease_lock_key(cluster_id, Lease(row.id, row.attempt, row.lease_token))


def _held_keys(conn: Connection) -> set[int]:
    return set(conn.execute(_HELD_KEYS).scalars())


def _stamp(conn: Connection, cluster_id: UUID) -> None:
    """Note which running jobs lost their lock, and which have it again."""
    query = select(job.c.id, job.c.attempt, job.c.lease_token, job.c.lockless_since)
    running = conn.execute(query.where(job.c.state == State.RUNNING)).all()
    held = _held_keys(conn) if running else set()
    free = [row for row in running if _key(cluster_id, row) not in held]
    _set_lockless(conn, [row for row in free if row.lockless_since is None], clock())
    again = [row for row in running if _key(cluster_id, row) in held and row.lockless_since is not None]
    _set_lockless(conn, again, None)


def _set_lockless(conn: Connection, rows: Sequence[AnyRow], value: ColumnElement[Any] | None) -> None:
    if rows:
        same = job.c.id.in_([row.id for row in rows]) & job.c.lease_token.in_([row.lease_token for row in rows])
        idle = select(job.c.id).where(same).with_for_update(skip_locked=True, key_share=True)
        conn.execute(update(job).where(job.c.id.in_(idle), same).values(lockless_since=value))


def _lock_suspects(conn: Connection, suspicion_seconds: float, lease_seconds: float) -> Sequence[AnyRow]:
    """Running jobs to take, locked; those that a transaction is at work on wait for the next round."""
    expired = job.c.lease_until <= clock()
    longer = timedelta(seconds=suspicion_seconds * NEVER_HELD_FACTOR)
    suspicion = timedelta(seconds=suspicion_seconds)
    patience = case((job.c.backend_pid.is_(None), longer), else_=suspicion)
    server_ran = func.pg_postmaster_start_time() <= clock() - timedelta(seconds=lease_seconds)
    watched = clock() - suspicion >= _OWN_SESSION_BEGAN
    lockless = (job.c.lockless_since <= clock() - patience) & server_ran & watched
    query = select(job, expired.label("expired")).where(job.c.state == State.RUNNING, expired | lockless)
    return conn.execute(query.limit(MOST_AT_ONCE).with_for_update(skip_locked=True, key_share=True)).all()


def _take(conn: Connection, row: AnyRow) -> Reaped:
    code, why = ("lease-expired", "its lease ran out") if row.expired else ("worker-lost", "its connection is gone")
    error = {"code": code, "message": f"worker {row.worker_id} lost the attempt: {why}", "retryable": True}
    state = after_crash(conn, row, Outcome.LOST, error=error, log=None)
    if row.backend_pid is not None:
        conn.execute(_TERMINATE, {"pid": row.backend_pid, "name": holder_name(row.worker_id)})
    return Reaped(row.id, row.attempt, row.worker_id, row.queue, code, state)
