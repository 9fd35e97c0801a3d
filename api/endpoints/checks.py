"""Checks: verify a checkpoint, audit a job, and get or cancel a check."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access import tell
from api.auth import Reader, Writer
from api.body import no_body, no_input
from api.check_schemas import Check, CheckList
from api.conditional import IfNoneMatch, not_modified
from api.endpoints.checkpoints import CheckpointId
from api.endpoints.jobs import NOT_MODIFIED, IdempotencyKey
from api.errors import InvalidParameter
from api.openapi import Responses, problems
from api.service import Service, ServiceDep
from api.views import check_path, check_view
from jobs import queries
from jobs.lifecycle.cancel import request_cancel_of_check
from jobs.lifecycle.check import MAX_AUDIT_STEPS, request_audit, request_verify
from jobs.queries import CheckRow

router = APIRouter(prefix="/v1", tags=["checks"])

DEFAULT_AUDIT_STEPS = 100
_CANCELLING: Responses = {202: {"model": Check, "description": "It runs; its worker was told"}}


class AuditQuery(BaseModel):
    """Query of an audit."""

    model_config = ConfigDict(extra="forbid")

    steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_AUDIT_STEPS,
            description=f"Number of steps to audit; {DEFAULT_AUDIT_STEPS} by default, or all if the job has fewer",
        ),
    ] = None


class CheckFilter(BaseModel):
    """Query of the list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=200)] = 50


@router.post(
    "/checkpoints/{checkpoint_id}/verify",
    status_code=202,
    operation_id="verify_checkpoint",
    summary="Verify a checkpoint by a replay",
    response_description="The check waits for a worker.",
    responses=problems("not-found", "checkpoint-incomplete", "idempotency-conflict", "invalid-parameter"),
    dependencies=[Depends(no_input)],
)
def verify_checkpoint(
    request: Request,
    caller: Writer,
    service: ServiceDep,
    *,
    checkpoint_id: CheckpointId,
    response: Response,
    idempotency_key: IdempotencyKey,
) -> Check:
    """The replay starts at the nearest kept checkpoint before it, or at the job's start, with the job's threads and
    device.
    """
    with service.transaction(caller) as connection:
        submitted = request_verify(
            connection,
            project_id=caller.project_id,
            checkpoint_id=checkpoint_id,
            idempotency_key=idempotency_key,
        )
        check = queries.get_check(connection, caller.project_id, submitted.job_id)
        answer = check_view(check)  # before the commit: after it nothing may fail
    tell(request, check_id=str(check.id), created=submitted.created)
    _accepted(service, response, check, created=submitted.created)
    return answer


@router.post(
    "/jobs/{job_id}/audit",
    status_code=202,
    operation_id="audit_job",
    summary="Compare a job's optimizer with torch.optim",
    response_description="The check waits for a worker.",
    responses=problems("not-found", "audit-too-large", "idempotency-conflict", "invalid-parameter"),
    dependencies=[Depends(no_body)],
)
def audit_job(
    request: Request,
    caller: Writer,
    service: ServiceDep,
    *,
    job_id: UUID,
    response: Response,
    query: Annotated[AuditQuery, Query()],
    idempotency_key: IdempotencyKey,
) -> Check:
    """Runs the job's first steps with optim_core and with torch.optim; the job itself need not have run."""
    with service.transaction(caller) as connection:
        total = queries.get_job(connection, caller.project_id, job_id).total_steps
        if query.steps is not None and query.steps > total:
            raise InvalidParameter.named("steps", f"the job has only {total:,} steps")
        submitted = request_audit(
            connection,
            project_id=caller.project_id,
            job_id=job_id,
            steps=query.steps or min(DEFAULT_AUDIT_STEPS, total),
            idempotency_key=idempotency_key,
        )
        check = queries.get_check(connection, caller.project_id, submitted.job_id)
        answer = check_view(check)  # before the commit: after it nothing may fail
    tell(request, check_id=str(check.id), created=submitted.created)
    _accepted(service, response, check, created=submitted.created)
    return answer


@router.get(
    "/checks/{check_id}",
    response_model=Check,
    operation_id="get_check",
    summary="Get a check",
    responses=NOT_MODIFIED | problems("not-found"),
)
def get_check(
    caller: Reader, service: ServiceDep, check_id: UUID, response: Response, if_none_match: IfNoneMatch = None
) -> Check | Response:
    """The ETag is the check's version: a poll with `If-None-Match` is cheap while nothing changes."""
    with service.engine.begin() as connection:
        check = queries.get_check(connection, caller.project_id, check_id)
    return not_modified(if_none_match, check.version, response) or check_view(check)


@router.post(
    "/checks/{check_id}/cancel",
    operation_id="cancel_check",
    summary="Cancel a check",
    responses=_CANCELLING | problems("not-found", "state-conflict", "invalid-parameter"),
    dependencies=[Depends(no_input)],
)
def cancel_check(caller: Writer, service: ServiceDep, check_id: UUID, response: Response) -> Check:
    """A waiting check is cancelled at once; a running check is `cancelling` for a moment. Can be repeated."""
    with service.transaction(caller) as connection:
        state = request_cancel_of_check(connection, project_id=caller.project_id, job_id=check_id)
        answer = check_view(queries.get_check(connection, caller.project_id, check_id))  # before the commit, too
    if state == "cancelling":
        service.notify(check_id)
        response.status_code = 202
    return answer


@router.get(
    "/jobs/{job_id}/checks",
    operation_id="list_job_checks",
    summary="Checks of a job, newest first",
    responses=problems("not-found", "invalid-parameter"),
)
def list_job_checks(
    caller: Reader, service: ServiceDep, job_id: UUID, query: Annotated[CheckFilter, Query()]
) -> CheckList:
    with service.engine.begin() as connection:
        found = queries.checks(connection, caller.project_id, job_id, limit=query.limit)
    return CheckList(checks=[check_view(check) for check in found])


def _accepted(service: Service, response: Response, check: CheckRow, *, created: bool) -> None:
    """To be called after the commit: wakes a worker, and sets the `Location` of the check."""
    response.headers["Location"] = check_path(check.id)
    if created:
        service.ring(check.queue)
    else:
        response.headers["Idempotent-Replayed"] = "true"
