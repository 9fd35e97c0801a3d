"""Checks: replays of a part of a job. A check is a job of another kind, with lease, attempts and crashes as any job.

    verify   from the nearest checkpoint before it (else the start) to a checkpoint: are the bits the same?
    audit    the first steps, by optim_core and by torch.optim: how far are they apart?

What it replays and what it found is in `check_run`, under the job's own id. Its spec, device and threads are the
subject's, because they decide bits; so are its queue and priority. Requested by the api, which rings the doorbell after
the commit; `claim` reads the task; `work.finish` writes the result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, func, insert, select, update

from jobs.documents import pack
from jobs.errors import AuditTooLarge, CheckpointNotComplete, NotFound
from jobs.ids import uuid7
from jobs.lifecycle.checkpoints import CheckpointRef
from jobs.lifecycle.lease import AnyRow
from jobs.lifecycle.submit import Submitted, earlier
from jobs.lifecycle.transitions import enter
from jobs.states import Kind
from jobs.tables import blob, check_run, checkpoint, job
from jobs.visibility import ancestry
from traind.spec import Resolved

MAX_AUDIT_STEPS = 10_000
MAX_AUDIT_WORK = 10**12
"""n_parameters x samples of a batch x steps: about a minute of a small machine."""
MIN_AUDIT_SAMPLES = 64
"""So many are counted of a smaller batch: the update and the comparison of each step cost as much."""

_COPIED = (
    "project_id",
    "optimizer",
    "spec",
    "resolved",
    "dataset_sha256",
    "queue",
    "device",
    "priority",
    "max_attempts",
    "memory_bytes",
    "dataset",
)


@dataclass(frozen=True)
class Task:
    """What a claimed check is to do."""

    kind: Kind
    from_step: int
    to_step: int
    origin: CheckpointRef | None
    """Where the replay starts; None for the start."""
    subject: CheckpointRef | None
    """What the replay is compared with; None for an audit."""
    subject_kind: str | None
    fingerprints: tuple[dict[str, Any], ...]
    """Of the attempts that trained the replayed steps."""
    gone: int | None
    """A checkpoint that is needed and was deleted since the check was asked for."""


def request_verify(
    conn: Connection, *, project_id: int, checkpoint_id: int, idempotency_key: str | None = None
) -> Submitted:
    """A check of one checkpoint. Raises NotFound, CheckpointNotComplete or IdempotencyConflict."""
    subject = _subject(conn, project_id, checkpoint_id)
    origin = _before(conn, subject)
    task = {
        "subject_job_id": subject.job_id,
        "checkpoint_id": subject.id,
        "from_checkpoint_id": origin.id if origin else None,
        "from_step": origin.step if origin else 0,
        "to_step": subject.step,
    }
    return _enter(conn, Kind.VERIFY, task, total_steps=subject.step, key=idempotency_key, asked=[checkpoint_id])


def request_audit(
    conn: Connection, *, project_id: int, job_id: UUID, steps: int, idempotency_key: str | None = None
) -> Submitted:
    """A check of the first `steps` steps (1 to the job's own number, which is the caller's to see to).

    Raises NotFound, AuditTooLarge or IdempotencyConflict.
    """
    here = (job.c.id == job_id) & (job.c.project_id == project_id) & (job.c.kind == Kind.TRAIN)
    subject = conn.execute(select(job).where(here)).one_or_none()
    if subject is None:
        raise NotFound("job", job_id)
    _check_work(Resolved.model_validate(subject.resolved), steps)
    task = {"subject_job_id": job_id, "from_step": 0, "to_step": steps}
    asked = [str(job_id), steps]
    return _enter(conn, Kind.AUDIT, task, total_steps=2 * steps, key=idempotency_key, asked=asked)


def task_of(conn: Connection, row: AnyRow) -> Task | None:
    """What the job `row` is to check; None where it is to train."""
    if row.kind == Kind.TRAIN:
        return None
    run = conn.execute(select(check_run).where(check_run.c.id == row.id)).one()
    found = _readable(conn, [ident for ident in (run.checkpoint_id, run.from_checkpoint_id) if ident is not None])
    wanted = {run.checkpoint_id, run.from_checkpoint_id} - {None}
    subject, origin = found.get(run.checkpoint_id), found.get(run.from_checkpoint_id)
    return Task(
        kind=Kind(row.kind),
        from_step=run.from_step,
        to_step=run.to_step,
        origin=None if origin is None else _ref(origin),
        subject=None if subject is None else _ref(subject),
        subject_kind=None if subject is None else subject.kind,
        fingerprints=() if subject is None else _fingerprints(conn, subject, run.from_step),
        gone=min(wanted - found.keys(), default=None),
    )


def record_result(conn: Connection, check_id: UUID, result: dict[str, Any]) -> None:
    """Keep what a check found. To be called by whoever holds the lock on its job and ends it."""
    conn.execute(update(check_run).where(check_run.c.id == check_id).values(result=pack(result)))


def _subject(conn: Connection, project_id: int, checkpoint_id: int) -> AnyRow:
    query = select(checkpoint).join(job, job.c.id == checkpoint.c.job_id)
    here = (checkpoint.c.id == checkpoint_id) & (job.c.project_id == project_id)
    row = conn.execute(query.where(here)).one_or_none()
    if row is None:
        raise NotFound("checkpoint", checkpoint_id)
    if not row.complete:
        raise CheckpointNotComplete(checkpoint_id)
    if not _readable(conn, [checkpoint_id]):
        raise NotFound("checkpoint", checkpoint_id)
    return row


def _readable(conn: Connection, idents: Sequence[int]) -> dict[int | None, AnyRow]:
    """Those of the checkpoints that are complete, and not being deleted."""
    model, state = blob.alias("model"), blob.alias("state")
    query = (
        select(checkpoint)
        .join(model, model.c.id == checkpoint.c.model_blob_id)
        .join(state, state.c.id == checkpoint.c.state_blob_id)
        .where(checkpoint.c.id.in_(idents), checkpoint.c.complete)
        .where(model.c.state == "complete", state.c.state == "complete")
    )
    return {row.id: row for row in conn.execute(query)}


def _before(conn: Connection, subject: AnyRow) -> CheckpointRef | None:
    """The nearest readable and undamaged checkpoint that the subject stands on."""
    line = ancestry(subject.job_id, subject.attempt)
    query = (
        select(checkpoint.c.id)
        .join(line, line.c.number == checkpoint.c.attempt)
        .where(checkpoint.c.job_id == subject.job_id, checkpoint.c.step < subject.step)
        .where(checkpoint.c.step <= line.c.cut, checkpoint.c.damage.is_(None))
    )
    found = _readable(conn, list(conn.execute(query).scalars()))
    nearest = max(found.values(), key=lambda row: (row.step, row.attempt), default=None)
    return None if nearest is None else _ref(nearest)


def _ref(row: AnyRow) -> CheckpointRef:
    return CheckpointRef(row.id, row.step, row.model_blob_id, row.state_blob_id)


def _fingerprints(conn: Connection, subject: AnyRow, from_step: int) -> tuple[dict[str, Any], ...]:
    line = ancestry(subject.job_id, subject.attempt)
    trained = func.greatest(line.c.from_step, from_step) < func.least(line.c.cut, subject.step)
    query = select(line.c.fingerprint).where(trained, line.c.fingerprint.is_not(None)).order_by(line.c.number)
    return tuple(conn.execute(query).scalars())


def _check_work(resolved: Resolved, steps: int) -> None:
    samples = max(resolved.batch_size, MIN_AUDIT_SAMPLES)
    a_step = resolved.n_parameters * samples
    if a_step * steps <= MAX_AUDIT_WORK:
        return
    most = MAX_AUDIT_WORK // a_step
    raise AuditTooLarge(
        f"an audit of {steps:,} steps computes {resolved.n_parameters:,} parameters x {samples:,} samples "
        f"x {steps:,} steps = {a_step * steps:,}; at most {MAX_AUDIT_WORK:,} are done; "
        + (f"ask for at most {most:,} steps" if most else "even one step is too large; audit a smaller job")
    )


def _enter(
    conn: Connection, kind: Kind, task: dict[str, Any], *, total_steps: int, key: str | None, asked: list[Any]
) -> Submitted:
    """The job that does it, and its task."""
    here = select(job).where(job.c.id == task["subject_job_id"])
    subject = conn.execute(here.with_for_update(read=True, key_share=True)).one_or_none()
    if subject is None:
        raise NotFound("job", task["subject_job_id"])
    digest = hashlib.sha256(json.dumps([kind, *asked]).encode()).digest()
    check_id = uuid7()
    created = enter(
        conn,
        check_id,
        kind=kind,
        idempotency_key=key,
        request_sha256=digest if key is not None else None,
        total_steps=total_steps,
        observed_step=task["from_step"],
        **{name: getattr(subject, name) for name in _COPIED},
    )
    if not created:
        return earlier(conn, subject.project_id, str(key), digest)
    conn.execute(insert(check_run).values(id=check_id, **task))
    return Submitted(check_id, created=True)
