"""What the holder of a lease writes. Called by the worker's slot.

Every function raises Fenced, and writes nothing, when the lease is stale: another token, a lease that ran out, a job
that no longer runs. Only `heartbeat` renews a lease that ran out, as long as nobody took the attempt. Repeating a
call whose answer was lost is harmless.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB

from jobs.documents import pack
from jobs.lifecycle.check import record_result
from jobs.lifecycle.checkpoints import (
    CheckpointRef,
    begin_checkpoint,
    complete_checkpoint,
    note_no_room,
    put_chunk,
    set_aside,
    step_back,
)
from jobs.lifecycle.crash import RELEASED, after_crash, after_drain, end_attempt
from jobs.lifecycle.lease import AnyRow, Fenced, Lease, after, clock, fence, fenced, lock, owned
from jobs.lifecycle.transitions import move, note
from jobs.metrics.codec import Segment
from jobs.metrics.store import insert_segment
from jobs.states import FINAL, Outcome, Request, State
from jobs.tables import attempt, job, job_event

__all__ = [
    "CheckpointRef",
    "Fenced",
    "begin_checkpoint",
    "complete_checkpoint",
    "crash",
    "finish",
    "heartbeat",
    "hold",
    "note_no_room",
    "put_chunk",
    "record_fingerprint",
    "record_metrics",
    "record_progress",
    "requeue",
    "set_aside",
]


def hold(conn: Connection, lease: Lease, *, backend_pid: int) -> None:
    """Say which server process has the lease's advisory lock; call it whenever the lock was (re)taken."""
    _write(conn, lease, {"backend_pid": backend_pid, "lockless_since": None})


def heartbeat(conn: Connection, lease: Lease, *, lease_seconds: float) -> Request:
    """Renew the lease, also a late one that nobody took; returns what a user asked for meanwhile."""
    renewed = update(job).where(owned(lease)).values(lease_until=after(lease_seconds)).returning(job.c.requested)
    row = conn.execute(renewed).one_or_none()
    if row is None:
        raise fenced(lease)
    return Request(row.requested)


def record_progress(conn: Connection, lease: Lease, *, phase: str, step: int, summary: dict[str, Any]) -> None:
    """Show where the attempt is. `summary` is merged into the job's: "last" and "best" key by key."""
    _write(conn, lease, _progress(phase, step, summary))


def record_metrics(
    conn: Connection,
    lease: Lease,
    *,
    seq: int,
    segment: Segment,
    phase: str | None = None,
    step: int | None = None,
    summary: dict[str, Any] | None = None,
) -> None:
    """Store flush number `seq` of this attempt, once, and show its progress (step: the segment's last)."""
    _write(conn, lease, _progress(phase, segment.step1 if step is None else step, summary or {}))
    insert_segment(conn, job_id=lease.job_id, attempt=lease.attempt, seq=seq, segment=segment)


def record_fingerprint(conn: Connection, lease: Lease, fingerprint: dict[str, Any]) -> None:
    """What the bits of this attempt depend on: versions, device, threads, data; once, however often it is repeated.

    Its event `ready` says that all is loaded, from where it goes on, and that the first batch is next. "differences",
    from what the checkpoint was taken with, make the job's resume no exact one.
    """
    row = lock(conn, lease)
    mine = (attempt.c.job_id == lease.job_id) & (attempt.c.number == lease.attempt)
    first = update(attempt).where(mine, attempt.c.fingerprint.is_(None)).values(fingerprint=pack(fingerprint))
    began = conn.execute(first.returning(attempt.c.from_step, attempt.c.from_checkpoint_id)).one_or_none()
    if began is None:
        return
    differences = pack(fingerprint.get("differences", []))
    origin = {"from_step": began.from_step, "checkpoint": began.from_checkpoint_id}
    note(conn, row, "ready", origin | {"differences": differences})
    if differences:
        known = dict.fromkeys([*row.resume_differences, *differences])
        changes = {"resume_differences": list(known), "version": job.c.version + 1}
        conn.execute(update(job).where(job.c.id == lease.job_id).values(changes))


def finish(
    conn: Connection,
    lease: Lease,
    *,
    state: State,
    error: dict[str, Any] | None,
    summary: dict[str, Any],
    log: str | None,
    result: dict[str, Any] | None = None,
) -> State:
    """End the job with an outcome; returns the state it has now, which is cancelled where that was asked for.

    `error` is {code, message, retryable, …}; needed for failed. `result` is what a check found. Repeating it returns
    the same.
    """
    if state not in FINAL:
        raise ValueError(f"{state} is not a final state")
    try:
        row = lock(conn, lease)
    except Fenced:
        return _finished_before(conn, lease, {state, State.CANCELLED})
    if row.requested == Request.CANCEL:
        state, error, result = State.CANCELLED, None, None
    if result is not None:
        record_result(conn, lease.job_id, result)
    end_attempt(conn, row, Outcome(state), error=error, log=log)
    values = {"error": pack(error), "summary": _merged(summary)}
    data = {"error": error} if error else {}
    if state is State.SUCCEEDED and summary.get("stopped_early"):
        data["stopped_early"] = {"step": row.saved_step} | (row.spec["training"]["early_stopping"] or {})
    move(conn, row, state, data, **values)
    return state


def crash(
    conn: Connection, lease: Lease, *, error: dict[str, Any], log: str | None, damaged: int | None = None
) -> State:
    """The attempt crashed; returns the job's next state (see `crash.after_crash`). Repeatable.

    It counts, unless `damaged` is given: the checkpoint that it started from, where that was the cause. No attempt
    starts from it any more. A second such crash in a row counts: rather the machine is at fault.
    """
    try:
        row = lock(conn, lease)
    except Fenced:
        return _left_before(conn, lease, {Outcome.CRASHED})
    counts = damaged is None or _met_damage_before(conn, row)
    if damaged is not None:
        step_back(conn, row, checkpoint_id=damaged, damage=error["message"])
    return after_crash(conn, row, Outcome.CRASHED, error=error, log=log, counts=counts)


def _met_damage_before(conn: Connection, row: AnyRow) -> bool:
    """Whether the attempt before the running one ended by a damaged checkpoint."""
    before = (attempt.c.job_id == row.id) & (attempt.c.number == row.attempt - 1)
    code = conn.execute(select(attempt.c.error["code"].astext).where(before)).scalar_one_or_none()
    return code == "checkpoint-corrupt"


def requeue(conn: Connection, lease: Lease, *, reason: str, log: str | None) -> State:
    """Give the job up without counting a crash, to go on from its last checkpoint; returns its next state: paused
    where that is asked for, cancelled likewise, else queued.

    `reason` stands in the event. Repeatable.
    """
    try:
        row = lock(conn, lease)
    except Fenced:
        return _left_before(conn, lease, set(RELEASED.values()))
    return after_drain(conn, row, reason=reason, log=log)


def _write(conn: Connection, lease: Lease, values: dict[str, Any]) -> None:
    if conn.execute(update(job).where(fence(lease)).values(values)).rowcount != 1:
        raise fenced(lease)


def _progress(phase: str | None, step: int, summary: dict[str, Any]) -> dict[str, Any]:
    """Columns that never go back, should an older flush be repeated."""
    newer = job.c.observed_step <= step
    values: dict[str, Any] = {"version": job.c.version + 1, "updated_at": clock()}
    values["observed_step"] = func.greatest(job.c.observed_step, step)
    if summary:
        values["summary"] = case((newer, _merged(summary)), else_=job.c.summary)
    if phase is not None:
        values["phase"] = phase
    return values


def _merged(summary: dict[str, Any]) -> ColumnElement[Any]:
    """The job's summary with `summary` laid over it; the maps "last" and "best" are merged key by key."""
    whole: dict[str, Any] = pack(summary)
    merged: ColumnElement[Any] = job.c.summary.concat(literal(whole, JSONB))
    for name in {"last", "best"} & whole.keys():
        before = func.coalesce(job.c.summary[name], literal({}, JSONB), type_=JSONB)
        part = func.jsonb_build_object(name, before.concat(literal(whole[name], JSONB)), type_=JSONB)
        merged = merged.concat(part)
    return merged


def _outcome(conn: Connection, lease: Lease) -> str | None:
    mine = (attempt.c.job_id == lease.job_id) & (attempt.c.lease_token == lease.token)
    outcome: str | None = conn.execute(select(attempt.c.outcome).where(mine)).scalar_one_or_none()
    return outcome


def _finished_before(conn: Connection, lease: Lease, states: set[State]) -> State:
    outcome = _outcome(conn, lease)
    if outcome not in states:
        raise fenced(lease)
    return State(outcome)


def _left_before(conn: Connection, lease: Lease, outcomes: set[Outcome]) -> State:
    if _outcome(conn, lease) not in outcomes:
        raise fenced(lease)
    left = (job_event.c.job_id == lease.job_id) & (job_event.c.attempt == lease.attempt)
    query = select(job_event.c.to_state).where(left, job_event.c.from_state == State.RUNNING)
    return State(conn.execute(query).scalar_one())
