"""Deletes jobs that have ended, and checkpoints. Their bytes are removed after the answer, and by every worker."""

from __future__ import annotations

import threading
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, BackgroundTasks, Depends, Path
from sqlalchemy.exc import SQLAlchemyError

from api.auth import Writer
from api.body import no_input
from api.openapi import problems
from api.service import Service, ServiceDep
from jobs.garbage import collect
from jobs.lifecycle.delete import delete_checkpoint, delete_job

router = APIRouter(prefix="/v1")
log = structlog.get_logger(__name__)
_collecting = threading.Lock()


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    operation_id="delete_job",
    summary="Delete a job that has ended",
    tags=["jobs"],
    responses=problems("not-found", "state-conflict", "in-use", "invalid-parameter"),
    dependencies=[Depends(no_input)],
)
def delete_job_(caller: Writer, service: ServiceDep, job_id: UUID, later: BackgroundTasks) -> None:
    """Also deletes the job's checkpoints, metrics, events and checks. Its Idempotency-Key can be used again."""
    with service.transaction(caller) as connection:
        delete_job(connection, project_id=caller.project_id, job_id=job_id)
    later.add_task(_collect, service)


@router.delete(
    "/checkpoints/{checkpoint_id}",
    status_code=204,
    operation_id="delete_checkpoint",
    summary="Delete a checkpoint",
    tags=["checkpoints"],
    responses=problems("not-found", "in-use", "invalid-parameter"),
    dependencies=[Depends(no_input)],
)
def delete_checkpoint_(
    caller: Writer,
    service: ServiceDep,
    checkpoint_id: Annotated[int, Path(ge=1, le=2**63 - 1)],
    later: BackgroundTasks,
) -> None:
    """Refused while its job continues from it, or while a check needs it."""
    with service.transaction(caller) as connection:
        delete_checkpoint(connection, project_id=caller.project_id, checkpoint_id=checkpoint_id)
    later.add_task(_collect, service)


def _collect(service: Service) -> None:
    """Remove the bytes now, because there may be no worker to do it; after an outage, a worker removes the rest."""
    if not _collecting.acquire(blocking=False):
        return
    try:
        while collect(service.engine, room=service.storage.little_room()).n_blobs:
            pass
    except SQLAlchemyError as error:
        log.warning("deleted checkpoints are left to housekeeping", error=type(error).__name__)
    finally:
        _collecting.release()
