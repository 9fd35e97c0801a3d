"""How attempts end, and what follows one that crashed. Called by `work` and `reap`, which hold the job's lock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, update

from jobs.documents import clean_text, pack
from jobs.lifecycle.lease import AnyRow, after, clock
from jobs.lifecycle.transitions import move
from jobs.states import Outcome, Request, State
from jobs.tables import attempt

MAX_BACKOFF_SECONDS = 300.0
MAX_LOG_CHARACTERS = 65_536
RELEASED = {State.QUEUED: Outcome.DRAINED, State.PAUSED: Outcome.PAUSED, State.CANCELLED: Outcome.CANCELLED}
"""Where a job goes that its worker gives up, and the outcome of that attempt."""


def backoff_seconds(crashes: int) -> float:
    """How long a job waits after its n-th crash: not at all, then 2, 4, 8 s and so on, at most five minutes."""
    return 0.0 if crashes < 2 else min(2.0 ** min(crashes - 1, 30), MAX_BACKOFF_SECONDS)


def end_attempt(
    conn: Connection, row: AnyRow, outcome: Outcome, *, error: dict[str, Any] | None, log: str | None
) -> None:
    """Close the running attempt of the locked job; the end of `log` is kept."""
    kept = None if log is None else clean_text(log[-MAX_LOG_CHARACTERS:])
    mine = (attempt.c.job_id == row.id) & (attempt.c.number == row.attempt)
    changes = {"outcome": outcome, "error": pack(error), "log": kept, "ended_at": clock()}
    conn.execute(update(attempt).where(mine).values(changes))


def after_crash(
    conn: Connection, row: AnyRow, outcome: Outcome, *, error: dict[str, Any], log: str | None, counts: bool = True
) -> State:
    """Close the attempt, count its crash where it counts, and move the locked job on; returns where to."""
    end_attempt(conn, row, outcome, error=error, log=log)
    crashes = row.crash_count + counts
    target = _next(row, crashes)
    values: dict[str, Any] = {"crash_count": crashes}
    if target is State.FAILED:
        values["error"] = pack(error)
    if target is State.QUEUED:
        values["not_before"] = after(backoff_seconds(crashes if counts else 0))
    move(conn, row, target, {"error": error, "crash_count": crashes}, **values)
    return target


def after_drain(conn: Connection, row: AnyRow, *, reason: str, log: str | None) -> State:
    """Close the attempt, which its worker gave up, and move the locked job on; returns where to."""
    target = _next(row, 0)
    end_attempt(conn, row, RELEASED[target], error=None, log=log)
    move(conn, row, target, {"reason": reason, "saved_step": row.saved_step})
    return target


def _next(row: AnyRow, crashes: int) -> State:
    """Cancel wins over everything, max_attempts over pause: a paused job can always go on."""
    if row.requested == Request.CANCEL:
        return State.CANCELLED
    if crashes >= row.max_attempts:
        return State.FAILED
    return State.PAUSED if row.requested == Request.PAUSE else State.QUEUED
