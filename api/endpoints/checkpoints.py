"""Checkpoints of a job and their content, streamed chunk by chunk, with ranges so that a download can be resumed."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Reader
from api.conditional import IfNoneMatch, IfRange, RangeHeader, byte_range, matches
from api.errors import CheckpointIncomplete
from api.openapi import Responses, problems
from api.schemas import Checkpoint, CheckpointList
from api.service import ServiceDep
from api.views import checkpoint_view
from jobs import queries
from jobs.blobs import read_range
from jobs.queries import BlobRow, CheckpointRow

router = APIRouter(prefix="/v1", tags=["checkpoints"])

Part = Literal["model", "state"]
CheckpointId = Annotated[int, Path(ge=1, le=2**63 - 1)]
MEDIA_TYPE = "application/octet-stream"
_BYTES: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_CONTENT: Responses = {
    200: {"description": "A safetensors file; its SHA-256 is the ETag"} | _BYTES,
    206: {"description": "The range that was asked for"} | _BYTES,
    304: {"description": "Still the content that If-None-Match names"},
}
_HEAD: Responses = {200: {"description": "As for GET, without the content"}, 304: _CONTENT[304]}
_REFUSED: Responses = problems("not-found", "checkpoint-incomplete", "invalid-parameter")


class CheckpointFilter(BaseModel):
    """Query of the list."""

    model_config = ConfigDict(extra="forbid")

    attempts: Annotated[
        Literal["visible", "all"],
        Field(description="`all` adds incomplete checkpoints and those of steps that a later attempt repeated"),
    ] = "visible"


class ContentFilter(BaseModel):
    """Query of the content."""

    model_config = ConfigDict(extra="forbid")

    part: Annotated[Part, Field(description="`model`: the weights under their state_dict names; `state`: the rest")] = (
        "model"
    )


@router.get(
    "/jobs/{job_id}/checkpoints",
    operation_id="list_job_checkpoints",
    summary="Checkpoints of a job, by step",
    responses=problems("not-found", "invalid-parameter"),
)
def list_job_checkpoints(
    caller: Reader, service: ServiceDep, job_id: UUID, query: Annotated[CheckpointFilter, Query()]
) -> CheckpointList:
    with service.engine.begin() as connection:
        found = queries.checkpoints(connection, caller.project_id, job_id, attempts=query.attempts)
    return CheckpointList(checkpoints=[checkpoint_view(checkpoint) for checkpoint in found])


@router.get(
    "/checkpoints/{checkpoint_id}",
    operation_id="get_checkpoint",
    summary="Get a checkpoint",
    responses=problems("not-found"),
)
def get_checkpoint(caller: Reader, service: ServiceDep, checkpoint_id: CheckpointId) -> Checkpoint:
    with service.engine.begin() as connection:
        return checkpoint_view(queries.checkpoint(connection, caller.project_id, checkpoint_id))


@router.head(
    "/checkpoints/{checkpoint_id}/content",
    response_class=Response,
    operation_id="head_checkpoint_content",
    summary="Size and hash of a checkpoint's file",
    responses=_HEAD | _REFUSED,
)
@router.get(
    "/checkpoints/{checkpoint_id}/content",
    response_class=Response,
    operation_id="get_checkpoint_content",
    summary="Download a checkpoint's file",
    responses=_CONTENT | _REFUSED | problems("range-not-satisfiable"),
)
def get_checkpoint_content(
    request: Request,
    caller: Reader,
    service: ServiceDep,
    *,
    checkpoint_id: CheckpointId,
    query: Annotated[ContentFilter, Query()],
    wanted: RangeHeader = None,
    if_range: IfRange = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    with service.engine.begin() as connection:
        checkpoint = queries.checkpoint(connection, caller.project_id, checkpoint_id)
    blob: BlobRow = getattr(checkpoint, query.part)
    if not checkpoint.complete or blob.sha256 is None:
        raise CheckpointIncomplete(f"checkpoint {checkpoint_id} is still being written; try again later")
    etag = f'"{blob.sha256.hex()}"'
    headers = _headers(checkpoint, query.part, etag)
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    part = byte_range(wanted, blob.size) if request.method == "GET" and if_range in (None, etag) else None
    start, stop = part or (0, blob.size)
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(headers=headers, media_type=MEDIA_TYPE)
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    content = read_range(service.engine, blob.id, start, stop)
    return StreamingResponse(content, 206 if part else 200, headers, MEDIA_TYPE)


def _headers(checkpoint: CheckpointRow, part: Part, etag: str) -> dict[str, str]:
    name = f"job-{checkpoint.job_id}-step-{checkpoint.step}-{part}.safetensors"
    return {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
