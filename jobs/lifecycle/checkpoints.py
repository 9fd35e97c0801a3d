"""A job's checkpoints, as the holder of a lease writes them and the next attempt finds them. Called by the worker.

Begin makes the rows, chunks go in short transactions of their own that never lock the job's row, complete checks
that all of them arrived and moves `saved_step`. Each step may be repeated after an answer that was lost. The worker
flushes its metrics up to the checkpoint's step before it calls `complete_checkpoint`. One that turns out to be damaged
is `set_aside` for the one before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, LargeBinary, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

from jobs.blobs import insert_blob
from jobs.documents import clean_text, pack
from jobs.errors import IncompleteUpload
from jobs.lifecycle.lease import AnyRow, Lease, clock, fence, fenced, lock
from jobs.lifecycle.removal import prune
from jobs.lifecycle.transitions import note
from jobs.tables import CHUNK_BYTES, attempt, blob, blob_chunk, checkpoint, job
from jobs.visibility import cuts

NO_ROOM = "no_room"
"""In a job's summary: why its checkpoints are not taken in."""


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint and the two blobs it is made of."""

    id: int
    step: int
    model_blob_id: int
    state_blob_id: int


@dataclass(frozen=True)
class ResumePoint:
    """Where the next attempt goes on: a checkpoint and the job's summary at that step, or the start.

    `differences` are those that made an attempt on the way there no exact resume.
    """

    checkpoint: CheckpointRef | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    differences: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        return self.checkpoint.step if self.checkpoint else 0

    def columns(self) -> dict[str, Any]:
        """The job's columns that show it to be there."""
        saved = self.checkpoint.step if self.checkpoint else None
        shown = {"observed_step": self.step, "saved_step": saved, "summary": self.summary}
        return shown | {"resume_differences": list(self.differences)}


def begin_checkpoint(
    conn: Connection,
    lease: Lease,
    *,
    step: int,
    kind: str,
    model_size: int,
    state_size: int,
    summary: dict[str, Any],
) -> CheckpointRef:
    """Announce a checkpoint of `step`, sizes in bytes; `summary` is the job's at that step. Raises Fenced.

    Repeated for the same step, it returns the checkpoint it began.
    """
    row = lock(conn, lease)
    began = _of_attempt(conn, lease, checkpoint.c.step == step)
    if began is not None:
        return began
    values = {
        "job_id": lease.job_id,
        "attempt": lease.attempt,
        "step": step,
        "kind": kind,
        "model_blob_id": insert_blob(conn, row.project_id, model_size),
        "state_blob_id": insert_blob(conn, row.project_id, state_size),
        "summary": pack(summary),
    }
    ident = conn.execute(insert(checkpoint).values(values).returning(checkpoint.c.id)).scalar_one()
    return CheckpointRef(ident, step, values["model_blob_id"], values["state_blob_id"])


def note_no_room(conn: Connection, lease: Lease, *, step: int, kind: str, reason: str) -> None:
    """An event: for `reason` the checkpoint of `step` is not taken in. An interval's is skipped, any other waits.

    The job shows it as its `no_room` until one is complete. Raises Fenced.
    """
    row = lock(conn, lease)
    event = "checkpoint-skipped" if kind == "interval" else "checkpoint-waits"
    note(conn, row, event, {"step": step, "kind": kind, "reason": reason})
    shown = job.c.summary.concat(literal({NO_ROOM: clean_text(reason)}, JSONB))
    changes = {"summary": shown, "version": job.c.version + 1, "updated_at": clock()}
    conn.execute(update(job).where(job.c.id == lease.job_id).values(changes))


def put_chunk(conn: Connection, lease: Lease, *, blob_id: int, seq: int, data: bytes) -> None:
    """Store chunk `seq` of an uploading blob; one that is there already stays as it is. Raises Fenced."""
    mine = select(job.c.id).where(fence(lease)).cte("mine")
    open_blob = select(blob.c.id).where(blob.c.id == blob_id, blob.c.state == "uploading").cte("open_blob")
    row = select(open_blob.c.id, literal(seq), literal(data, LargeBinary)).where(select(mine.c.id).exists())
    stored = postgresql.insert(blob_chunk).from_select(["blob_id", "seq", "data"], row).on_conflict_do_nothing()
    held = select(select(mine.c.id).exists() & select(open_blob.c.id).exists())
    if not conn.execute(held.add_cte(stored.cte("stored"))).scalar_one():
        raise fenced(lease)


def complete_checkpoint(
    conn: Connection,
    lease: Lease,
    *,
    checkpoint_id: int,
    model_sha256: bytes,
    state_sha256: bytes,
    needed: int | None = None,
) -> list[int]:
    """Make the checkpoint readable, and the place where the next attempt starts; its step counts as observed.

    Interval checkpoints beyond the spec's `checkpoints.keep_last` go, but that of step `needed`; their blobs, marked
    `deleting`, are returned to be removed. Repeating it changes nothing. Raises Fenced, or IncompleteUpload where
    chunks are missing or too short or long.
    """
    row = lock(conn, lease)
    of_id = (checkpoint.c.id == checkpoint_id) & (checkpoint.c.job_id == lease.job_id)
    found = conn.execute(select(checkpoint).where(of_id, checkpoint.c.attempt == lease.attempt)).one_or_none()
    if found is None:
        raise fenced(lease)
    if found.complete:
        return []
    for blob_id, sha256 in ((found.model_blob_id, model_sha256), (found.state_blob_id, state_sha256)):
        _complete_blob(conn, blob_id, sha256)
    conn.execute(update(checkpoint).where(of_id).values(complete=True, completed_at=clock()))
    steps = {name: func.greatest(job.c[name], found.step) for name in ("saved_step", "observed_step")}
    changes = steps | {"version": job.c.version + 1, "updated_at": clock(), "summary": job.c.summary.op("-")(NO_ROOM)}
    conn.execute(update(job).where(job.c.id == lease.job_id).values(changes))
    note(conn, row, "checkpoint", {"checkpoint": found.id, "step": found.step, "kind": found.kind})
    return prune(conn, row, needed)


def resume_point(conn: Connection, job_id: UUID) -> ResumePoint:
    """The latest complete and undamaged checkpoint in the job's one line of history, or its start."""
    line = cuts(job_id)
    model, state = blob.alias("model"), blob.alias("state")
    query = (
        select(checkpoint)
        .join(line, line.c.number == checkpoint.c.attempt)
        .join(model, model.c.id == checkpoint.c.model_blob_id)
        .join(state, state.c.id == checkpoint.c.state_blob_id)
        .where(checkpoint.c.job_id == job_id, checkpoint.c.complete, checkpoint.c.step <= line.c.cut)
        .where(model.c.state == "complete", state.c.state == "complete", checkpoint.c.damage.is_(None))
        .order_by(checkpoint.c.step.desc(), checkpoint.c.attempt.desc())
        .limit(1)
    )
    row = conn.execute(query).one_or_none()
    if row is None:
        return ResumePoint()
    return ResumePoint(_ref(row), row.summary, _differences_before(conn, job_id, row.step))


def set_aside(conn: Connection, lease: Lease, *, checkpoint_id: int, damage: str) -> ResumePoint:
    """The attempt, which has computed nothing yet, cannot start from this checkpoint: it starts from the one before.

    `damage` says what is wrong with it, in its row and in an event; no attempt will start from it any more. Repeating
    it changes nothing. Raises Fenced.
    """
    point = step_back(conn, lock(conn, lease), checkpoint_id=checkpoint_id, damage=damage)
    ident = point.checkpoint.id if point.checkpoint else None
    mine = (attempt.c.job_id == lease.job_id) & (attempt.c.number == lease.attempt)
    conn.execute(update(attempt).where(mine).values(from_step=point.step, from_checkpoint_id=ident))
    return point


def step_back(conn: Connection, row: AnyRow, *, checkpoint_id: int, damage: str) -> ResumePoint:
    """Put the locked job back to the checkpoint before this one, from which no attempt starts any more; repeatable."""
    whole = (checkpoint.c.id == checkpoint_id) & (checkpoint.c.job_id == row.id) & checkpoint.c.damage.is_(None)
    marked = update(checkpoint).where(whole).values(damage=clean_text(damage)).returning(checkpoint.c.step)
    step = conn.execute(marked).scalar_one_or_none()
    point = resume_point(conn, row.id)
    if step is not None:
        event = {"checkpoint": checkpoint_id, "step": step, "damage": damage, "back_to_step": point.step}
        note(conn, row, "checkpoint-damaged", event)
    conn.execute(update(job).where(job.c.id == row.id).values(version=job.c.version + 1, **point.columns()))
    return point


def _differences_before(conn: Connection, job_id: UUID, step: int) -> tuple[str, ...]:
    """How the attempts that trained up to `step` in the one line of history differed from what they started from."""
    line = cuts(job_id)
    trained = attempt.c.from_step < func.least(line.c.cut, step)
    query = (
        select(attempt.c.fingerprint["differences"])
        .join(line, line.c.number == attempt.c.number)
        .where(attempt.c.job_id == job_id, attempt.c.fingerprint.is_not(None), trained)
        .order_by(attempt.c.number)
    )
    return tuple(dict.fromkeys(text for found in conn.execute(query).scalars() for text in found or ()))


def _of_attempt(conn: Connection, lease: Lease, condition: Any) -> CheckpointRef | None:
    mine = (checkpoint.c.job_id == lease.job_id) & (checkpoint.c.attempt == lease.attempt)
    row = conn.execute(select(checkpoint).where(mine, condition)).one_or_none()
    return None if row is None else _ref(row)


def _ref(row: AnyRow) -> CheckpointRef:
    return CheckpointRef(row.id, row.step, row.model_blob_id, row.state_blob_id)


def _complete_blob(conn: Connection, blob_id: int, sha256: bytes) -> None:
    size = func.least(CHUNK_BYTES, blob.c.size - blob_chunk.c.seq * CHUNK_BYTES)
    stored = select(func.count()).where(blob_chunk.c.blob_id == blob.c.id).correlate(blob)
    wrong = stored.where(func.octet_length(blob_chunk.c.data) != size)
    whole = (stored.scalar_subquery() == blob.c.n_chunks) & (wrong.scalar_subquery() == 0)
    changes = {"state": "complete", "sha256": sha256, "completed_at": clock()}
    if conn.execute(update(blob).where(blob.c.id == blob_id, whole).values(changes)).rowcount != 1:
        raise IncompleteUpload(blob_id)
