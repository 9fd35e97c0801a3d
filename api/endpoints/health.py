"""The service's name and links, its liveness and its readiness. Needs no API key."""

from __future__ import annotations

from importlib.metadata import version

import redis
import structlog
from fastapi import APIRouter
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text

from api.errors import NotReady
from api.openapi import problems
from api.schemas import Live, Ready, Root
from api.service import Service, ServiceDep
from jobs.database import schema_fault
from jobs.queries.trouble import without_room

log = structlog.get_logger("api")
router = APIRouter(tags=["health"])
REDIS_TIMEOUT_SECONDS = 0.5


@router.get("/", operation_id="get_root", summary="What is this?", responses=problems("internal", key=False))
async def root() -> Root:
    return Root(name="traind", version=version("traind"), jobs="/v1/jobs", openapi="/openapi.json", ready="/readyz")


@router.head("/livez", include_in_schema=False)
@router.get(
    "/livez", operation_id="get_liveness", summary="Is the process alive?", responses=problems("internal", key=False)
)
async def livez() -> Live:
    return Live(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can the service take jobs?",
    responses=problems("not-ready", "database-unavailable", "internal", key=False),
)
def readyz(service: ServiceDep) -> Ready:
    """The database must answer, accept writes and be migrated.

    Redis may be down: workers then find jobs by polling. The database may have no room for checkpoints, or none for
    those of a running job (`storage`): jobs are then accepted, and may have to wait.
    """
    with service.engine.begin() as connection:
        fault = schema_fault(connection)
        only_reads = connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on"
    if only_reads:
        raise NotReady("the database only reads, as after a failover: lead TRAIND_DATABASE_URL to the primary")
    if fault:
        raise NotReady(fault)
    degraded = [] if _redis_answers(service) else ["redis"]
    with service.engine.begin() as connection:
        refused = without_room(connection)
    if (lack := service.storage.lack() or refused) is not None:
        log.warning("the database has no room for checkpoints", reason=lack)
        degraded.append("storage")
    return Ready(status="degraded" if degraded else "ok", degraded=degraded)


def _redis_answers(service: Service) -> bool:
    timeout = REDIS_TIMEOUT_SECONDS
    try:
        with redis.Redis.from_url(
            service.redis_url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        ) as client:
            return bool(client.ping())
    except Exception as error:  # whatever is wrong with it, the service takes jobs
        log.warning("Redis does not answer", error=type(error).__name__)
        return False
