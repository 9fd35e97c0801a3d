"""A job's checkpoints, as the holder of a lease writes them and the next attempt finds them. Called by the worker.

Begin makes the rows, chunks go in short transactions of their own that never lock the job's row, complete checks
that all of them arrived and moves `saved_step`. Each step may be repeated after an answer that was lost. The worker
flushes its metrics up to the checkpoint's step before it calls `complete_checkpoint`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, LargeBinary, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql

from jobs.blobs import insert_blob
from jobs.documents import pack
from jobs.errors import IncompleteUpload
from jobs.lifecycle.lease import AnyRow, Lease, clock, fence, fenced, lock
from jobs.lifecycle.transitions import note
from jobs.tables import blob, blob_chunk, checkpoint, job
from jobs.visibility import cuts


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint and the two blobs it is made of."""

    id: int
    step: int
    model_blob_id: int
    state_blob_id: int


@dataclass(frozen=True)
class ResumePoint:
    """Where the next attempt goes on: a checkpoint and the job's summary at that step, or the start."""

    checkpoint: CheckpointRef | None
    summary: dict[str, Any]

    @property
    def step(self) -> int:
        return self.checkpoint.step if self.checkpoint else 0

    def columns(self) -> dict[str, Any]:
        """The job's columns that show it to be there."""
        saved = self.checkpoint.step if self.checkpoint else None
        return {"observed_step": self.step, "saved_step": saved, "summary": self.summary}


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
    conn: Connection, lease: Lease, *, checkpoint_id: int, model_sha256: bytes, state_sha256: bytes
) -> None:
    """Make the checkpoint readable, and the place where the next attempt starts; its step counts as observed.

    Repeating it changes nothing. Raises Fenced, or IncompleteUpload where chunks are missing.
    """
    row = lock(conn, lease)
    of_id = (checkpoint.c.id == checkpoint_id) & (checkpoint.c.job_id == lease.job_id)
    found = conn.execute(select(checkpoint).where(of_id, checkpoint.c.attempt == lease.attempt)).one_or_none()
    if found is None:
        raise fenced(lease)
    if found.complete:
        return
    for blob_id, sha256 in ((found.model_blob_id, model_sha256), (found.state_blob_id, state_sha256)):
        _complete_blob(conn, blob_id, sha256)
    conn.execute(update(checkpoint).where(of_id).values(complete=True, completed_at=clock()))
    steps = {name: func.greatest(job.c[name], found.step) for name in ("saved_step", "observed_step")}
    changes = steps | {"version": job.c.version + 1, "updated_at": clock()}
    conn.execute(update(job).where(job.c.id == lease.job_id).values(changes))
    note(conn, row, "checkpoint", {"checkpoint": found.id, "step": found.step, "kind": found.kind})


def resume_point(conn: Connection, job_id: UUID) -> ResumePoint:
    """The latest complete checkpoint in the job's one line of history, or its start."""
    line = cuts(job_id)
    model, state = blob.alias("model"), blob.alias("state")
    query = (
        select(checkpoint)
        .join(line, line.c.number == checkpoint.c.attempt)
        .join(model, model.c.id == checkpoint.c.model_blob_id)
        .join(state, state.c.id == checkpoint.c.state_blob_id)
        .where(checkpoint.c.job_id == job_id, checkpoint.c.complete, checkpoint.c.step <= line.c.cut)
        .where(model.c.state == "complete", state.c.state == "complete")
        .order_by(checkpoint.c.step.desc(), checkpoint.c.attempt.desc())
        .limit(1)
    )
    row = conn.execute(query).one_or_none()
    return ResumePoint(None, {}) if row is None else ResumePoint(_ref(row), row.summary)


def _of_attempt(conn: Connection, lease: Lease, condition: Any) -> CheckpointRef | None:
    mine = (checkpoint.c.job_id == lease.job_id) & (checkpoint.c.attempt == lease.attempt)
    row = conn.execute(select(checkpoint).where(mine, condition)).one_or_none()
    return None if row is None else _ref(row)


def _ref(row: AnyRow) -> CheckpointRef:
    return CheckpointRef(row.id, row.step, row.model_blob_id, row.state_blob_id)


def _complete_blob(conn: Connection, blob_id: int, sha256: bytes) -> None:
    size = func.coalesce(func.sum(func.octet_length(blob_chunk.c.data)), 0)
    stored = select(func.count().label("n"), size.label("size")).where(blob_chunk.c.blob_id == blob_id).subquery()
    whole = (blob.c.n_chunks == stored.c.n) & (blob.c.size == stored.c.size)
    changes = {"state": "complete", "sha256": sha256, "completed_at": clock()}
    if conn.execute(update(blob).where(blob.c.id == blob_id, whole).values(changes)).rowcount != 1:
        raise IncompleteUpload(blob_id)
