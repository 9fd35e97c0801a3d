"""From rows to the JSON of `api.schemas`: what is stored, as a client sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from api.check_schemas import AuditResult, Check, CheckLinks, VerifyResult
from api.schemas import (
    Attempt,
    Best,
    Blob,
    Checkpoint,
    CheckpointLinks,
    Creator,
    DryRun,
    Event,
    Failure,
    Job,
    JobLinks,
    NonFinite,
    Progress,
    Summary,
    WaitingFor,
)
from api.worker_schemas import HeldJob, Worker
from jobs import queries
from jobs.queries import AttemptRow, BlobRow, CheckpointRow, CheckRow, EventRow, JobRow, WorkerRow
from jobs.states import Kind, State
from traind.spec import JobSpec, Resolved


def job_path(job_id: UUID) -> str:
    return f"/v1/jobs/{job_id}"


def checkpoint_path(checkpoint_id: int) -> str:
    return f"/v1/checkpoints/{checkpoint_id}"


def job_view(job: JobRow) -> Job:
    return Job(
        id=job.id,
        name=job.name,
        labels=job.labels,
        state=job.shown_state,
        phase=job.phase if job.state is State.RUNNING else None,
        waiting_for=_waiting_view(job.waiting_for),
        stopped_early=job.stopped_early,
        queue=job.queue,
        priority=job.priority,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        crash_count=job.crash_count,
        resume_exact=not job.resume_differences,
        resume_differences=job.resume_differences,
        spec=job.spec,
        resolved=job.resolved,
        progress=_progress(job),
        metrics=summary_view(job.summary),
        error=None if job.error is None else Failure.model_validate(job.error),
        created_by=None if job.created_by is None else Creator.model_validate(job.created_by),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        updated_at=job.updated_at,
        version=job.version,
        links=_job_links(job.id),
    )


def dry_run_view(spec: JobSpec, resolved: Resolved, waits: queries.WaitingFor | None) -> DryRun:
    return DryRun(
        spec=spec.model_dump(mode="json"),
        resolved=resolved.model_dump(mode="json"),
        waiting_for=_waiting_view(waits),
    )


def summary_view(summary: Mapping[str, Any]) -> Summary:
    last, best = summary.get("last", {}), summary.get("best", {})
    return Summary(
        last=last,
        best={key: Best.model_validate(value) for key, value in best.items()},
        nonfinite={key: non_finite(v) for key, v in last.items() if v is not None and not math.isfinite(v)},
    )


def event_view(event: EventRow) -> Event:
    return Event(
        id=event.id,
        kind=event.kind,
        from_state=event.from_state,
        to_state=event.to_state,
        attempt=event.attempt,
        data=event.data,
        created_at=event.created_at,
    )


def attempt_view(attempt: AttemptRow) -> Attempt:
    return Attempt(
        number=attempt.number,
        worker_id=attempt.worker_id,
        from_step=attempt.from_step,
        from_checkpoint_id=attempt.from_checkpoint_id,
        fingerprint=attempt.fingerprint,
        resume_exact=attempt.resume_exact,
        outcome=attempt.outcome,
        error=None if attempt.error is None else Failure.model_validate(attempt.error),
        log=attempt.log,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
    )


def checkpoint_view(checkpoint: CheckpointRow) -> Checkpoint:
    path = checkpoint_path(checkpoint.id)
    links = CheckpointLinks(
        self=path,
        job=job_path(checkpoint.job_id),
        model=f"{path}/content?part=model",
        state=f"{path}/content?part=state",
        verify=f"{path}/verify",
    )
    return Checkpoint(
        id=checkpoint.id,
        job_id=checkpoint.job_id,
        attempt=checkpoint.attempt,
        step=checkpoint.step,
        kind=checkpoint.kind,
        complete=checkpoint.complete,
        pinned=checkpoint.pinned,
        damage=checkpoint.damage,
        model=_blob_view(checkpoint.model),
        state=_blob_view(checkpoint.state),
        summary=summary_view(checkpoint.summary),
        created_at=checkpoint.created_at,
        completed_at=checkpoint.completed_at,
        links=links,
    )


def worker_view(worker: WorkerRow) -> Worker:
    return Worker(
        id=worker.id,
        name=worker.name,
        state=worker.state,
        device="cuda" if worker.device == "cuda" else "cpu",
        queues=list(worker.queues),
        slots=worker.slots,
        busy=worker.busy,
        jobs=[_held_view(job) for job in worker.jobs],
        versions=worker.versions,
        started_at=worker.started_at,
        last_seen_at=worker.last_seen_at,
        seen_seconds=round(worker.seen_seconds, 3),
        stopped_at=worker.stopped_at,
        trouble=worker.trouble,
        memory_bytes=worker.memory_bytes,
        lacks=worker.lacks,
    )


def check_path(check_id: UUID) -> str:
    return f"/v1/checks/{check_id}"


def check_view(check: CheckRow) -> Check:
    path = check_path(check.id)
    links = CheckLinks(
        self=path,
        cancel=f"{path}/cancel",
        job=job_path(check.subject_job_id),
        checkpoint=None if check.checkpoint_id is None else checkpoint_path(check.checkpoint_id),
    )
    return Check(
        id=check.id,
        kind="verify" if check.kind is Kind.VERIFY else "audit",
        state=check.shown_state,
        phase=check.phase if check.state is State.RUNNING else None,
        attempt=check.attempt,
        job_id=check.subject_job_id,
        checkpoint_id=check.checkpoint_id,
        from_checkpoint_id=check.from_checkpoint_id,
        from_step=check.from_step,
        to_step=check.to_step,
        steps_done=check.observed_step - check.from_step,
        steps_total=check.total_steps - check.from_step,
        result=_result(check),
        error=None if check.error is None else Failure.model_validate(check.error),
        created_by=None if check.created_by is None else Creator.model_validate(check.created_by),
        created_at=check.created_at,
        started_at=check.started_at,
        finished_at=check.finished_at,
        updated_at=check.updated_at,
        version=check.version,
        links=links,
    )


def _result(check: CheckRow) -> VerifyResult | AuditResult | None:
    if check.result is None:
        return None
    return (VerifyResult if check.kind is Kind.VERIFY else AuditResult).model_validate(check.result)


def non_finite(value: float) -> NonFinite:
    if math.isnan(value):
        return "nan"
    return "inf" if value > 0 else "-inf"


def _progress(job: JobRow) -> Progress:
    running = job.state is State.RUNNING
    epoch = (job.observed_step - 1) // job.resolved["steps_per_epoch"] + 1 if job.observed_step else None
    return Progress(
        step=job.observed_step,
        total_steps=job.total_steps,
        saved_step=job.saved_step,
        epoch=epoch,
        rate_steps_per_second=job.summary.get("rate"),
        eta_seconds=job.summary.get("eta_seconds") if running else None,
        no_room=job.summary.get("no_room") if running else None,
    )


def _waiting_view(waiting: queries.WaitingFor | None) -> WaitingFor | None:
    if waiting is None:
        return None
    return WaitingFor(reason=waiting.reason, message=waiting.message, until=waiting.until)


def _held_view(job: queries.HeldJob) -> HeldJob:
    return HeldJob(
        id=job.id,
        kind=job.kind,
        name=job.name,
        attempt=job.attempt,
        phase=job.phase,
        step=job.step,
        total_steps=job.total_steps,
        rate_steps_per_second=job.rate_steps_per_second,
        lease_left_seconds=round(job.lease_left_seconds, 3),
        link=job_path(job.id) if job.kind is Kind.TRAIN else check_path(job.id),
    )


def _job_links(job_id: UUID) -> JobLinks:
    path = job_path(job_id)
    return JobLinks(
        self=path,
        cancel=f"{path}/cancel",
        pause=f"{path}/pause",
        resume=f"{path}/resume",
        retry=f"{path}/retry",
        events=f"{path}/events",
        attempts=f"{path}/attempts",
        metrics=f"{path}/metrics",
        checkpoints=f"{path}/checkpoints",
        checks=f"{path}/checks",
        audit=f"{path}/audit",
    )


def _blob_view(blob: BlobRow) -> Blob:
    return Blob(size=blob.size, sha256=None if blob.sha256 is None else blob.sha256.hex())
