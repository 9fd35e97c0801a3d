"""How attempts end, and what follows one that crashed. Called by `work` and `reap`, which hold the job's lock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select, update

from jobs.documents import clean_text, pack
from jobs.lifecycle.lease import AnyRow, after, clock
from jobs.lifecycle.transitions import move
from jobs.states import Outcome, Request, State
from jobs.tables import attempt, job_event

MAX_BACKOFF_SECONDS = 300.0
MAX_LOG_CHARACTERS = 65_536
DATA_FAULTS = frozenset({"dataset-corrupt", "dataset-unavailable"})
"""Codes of a dataset that a worker's machine cannot read."""
MACHINE_FAULTS = DATA_FAULTS | {
    *("checkpoint-unreadable", "device-unavailable", "trainer-not-started"),
    *("scratch-full", "scratch-unusable", "storage-full"),
}
"""Codes of what is wrong with a worker's machine, or the database's. Such a crash is not counted among the job's."""
MOST_MACHINE_FAULTS = 10
"""After so many in a row, with nothing saved meanwhile, no machine seems able to serve the job, and it fails."""
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
    """Close the attempt, count its crash if it counts, and move the locked job on; returns where to.

    A machine's fault never counts; the job waits longer after each in a row, and the last of MOST_MACHINE_FAULTS fails
    it.
    """
    faults = _faults_in_a_row(conn, row) if error["code"] in MACHINE_FAULTS else 0
    counts = counts and not faults
    crashes = row.crash_count + counts
    target = _next(row, crashes, faults)
    if target is State.FAILED and faults:
        error = error | {"message": f"{error['message']} ({faults} attempts in a row ended by faults of machines)"}
    end_attempt(conn, row, outcome, error=error, log=log)
    values: dict[str, Any] = {"crash_count": crashes}
    if target is State.FAILED:
        values["error"] = pack(error)
    if target is State.QUEUED:
        values["not_before"] = after(backoff_seconds(crashes if counts else faults))
    event = {"error": error, "crash_count": crashes} | ({"machine_faults": faults} if faults else {})
    move(conn, row, target, event, **values)
    return target


def _faults_in_a_row(conn: Connection, row: AnyRow) -> int:
    """How many attempts since the last retry ended in a row by a machine's fault and saved nothing.

    The running one is among them.
    """
    retried = select(func.max(job_event.c.attempt)).where(job_event.c.job_id == row.id, job_event.c.kind == "retried")
    code = attempt.c.error["code"].astext.label("code")
    before = (attempt.c.job_id == row.id) & (attempt.c.number > func.coalesce(retried.scalar_subquery(), 0))
    query = select(attempt.c.from_step, code).where(before).order_by(attempt.c.number.desc())
    current, *others = conn.execute(query.limit(MOST_MACHINE_FAULTS)).all()
    if (row.saved_step or 0) > current.from_step:
        return 1
    count = 1
    for each in others:
        if each.code not in MACHINE_FAULTS or each.from_step != current.from_step:
            break
        count += 1
    return count


def after_drain(conn: Connection, row: AnyRow, *, reason: str, log: str | None) -> State:
    """Close the attempt, which its worker gave up, and move the locked job on; returns where to."""
    target = _next(row, 0)
    end_attempt(conn, row, RELEASED[target], error=None, log=log)
    move(conn, row, target, {"reason": reason, "saved_step": row.saved_step})
    return target


def _next(row: AnyRow, crashes: int, faults: int = 0) -> State:
    """Cancel wins over everything, max_attempts over pause: a paused job can always go on."""
    if row.requested == Request.CANCEL:
        return State.CANCELLED
    if crashes >= row.max_attempts or faults >= MOST_MACHINE_FAULTS:
        return State.FAILED
    return State.PAUSED if row.requested == Request.PAUSE else State.QUEUED
