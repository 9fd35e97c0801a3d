"""Submit: the job, its event and its dataset's row, in one transaction. Called by the api."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from jobs.errors import IdempotencyConflict
from jobs.ids import uuid7
from jobs.lifecycle.transitions import enter
from jobs.tables import dataset, job
from traind.spec import CheckpointRule, JobSpec, Resolved


@dataclass(frozen=True)
class Submitted:
    """The job, and whether this call made it (False: the idempotency key had made it before)."""

    job_id: UUID
    created: bool


def submit(
    conn: Connection, *, project_id: int, spec: JobSpec, resolved: Resolved, idempotency_key: str | None = None
) -> Submitted:
    """Insert a job that waits for a worker.

    The same key with the same spec finds the job it made; with another spec it raises IdempotencyConflict.
    """
    _insert_dataset(conn, spec, resolved)
    document = spec.model_dump(mode="json")
    digest = _digest(document)
    job_id = uuid7()
    created = enter(
        conn,
        job_id,
        project_id=project_id,
        idempotency_key=idempotency_key,
        request_sha256=digest if idempotency_key is not None else None,
        name=spec.name,
        labels=spec.labels,
        optimizer=spec.optimizer.name,
        spec=document,
        resolved=resolved.model_dump(mode="json"),
        dataset_sha256=bytes.fromhex(resolved.dataset_sha256),
        queue=spec.resources.queue,
        device=spec.resources.device,
        priority=spec.resources.priority,
        max_attempts=spec.resources.max_attempts,
        total_steps=resolved.total_steps,
        memory_bytes=resolved.memory_bytes,
        dataset=spec.dataset.name,
    )
    if created:
        return Submitted(job_id, created=True)
    return earlier(conn, project_id, str(idempotency_key), digest)


def _digest(document: dict[str, Any]) -> bytes:
    """Of the spec; what an earlier release did not know, and has its default, leaves it as that release made it."""
    later = {"checkpoints": CheckpointRule().model_dump(mode="json")}
    told = {name: part for name, part in document.items() if name not in later or part != later[name]}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()


def earlier(conn: Connection, project_id: int, key: str, digest: bytes) -> Submitted:
    """What `key` made before. Raises IdempotencyConflict where that was another request."""
    same = (job.c.project_id == project_id) & (job.c.idempotency_key == key)
    row = conn.execute(select(job.c.id, job.c.request_sha256).where(same)).one()
    if row.request_sha256 != digest:
        raise IdempotencyConflict(key)
    return Submitted(row.id, created=False)


def _insert_dataset(conn: Connection, spec: JobSpec, resolved: Resolved) -> None:
    row = insert(dataset).values(
        sha256=bytes.fromhex(resolved.dataset_sha256),
        name=spec.dataset.name,
        parameters=spec.dataset.model_dump(mode="json", exclude={"name"}),
        n_train=resolved.n_train,
        n_validation=resolved.n_validation,
    )
    conn.execute(row.on_conflict_do_nothing())
