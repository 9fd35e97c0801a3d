"""The worker processes and the jobs that each holds."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Reader
from api.openapi import problems
from api.service import ServiceDep
from api.views import worker_view
from api.worker_schemas import WorkerList
from jobs import queries

router = APIRouter(prefix="/v1/workers", tags=["workers"])


class WorkerFilter(BaseModel):
    """Query of the list."""

    model_config = ConfigDict(extra="forbid")

    stopped: Annotated[bool, Field(description="Also list workers that have stopped")] = False
    limit: Annotated[int, Field(ge=1, le=1_000)] = 1_000


@router.get(
    "",
    operation_id="list_workers",
    summary="List workers and the jobs that each holds",
    responses=problems("invalid-parameter"),
)
def list_workers(caller: Reader, service: ServiceDep, query: Annotated[WorkerFilter, Query()]) -> WorkerList:
    """Workers belong to no project. All are listed, with your project's jobs; other jobs only count as busy."""
    with service.engine.begin() as connection:
        found = queries.list_workers(connection, caller.project_id, stopped=query.stopped, limit=query.limit)
    return WorkerList(workers=[worker_view(worker) for worker in found])
