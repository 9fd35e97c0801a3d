"""NOTIFY: a request of a user reaches the worker that runs the job in milliseconds. The heartbeat is the fallback.

The api calls `notify_request` after its commit: inside the writing transaction a NOTIFY would serialise all writers.
Each worker LISTENs on its heartbeat connection.
"""

from __future__ import annotations

from uuid import UUID

import structlog
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

log = structlog.get_logger(__name__)


def requests_channel(cluster_id: UUID) -> str:
    """The channel on which the ids of jobs travel whose `requested` was set."""
    return f"traind_requests_{cluster_id.hex}"


def notify_request(engine: Engine, cluster_id: UUID, job_id: UUID) -> None:
    """Tell the workers to look at the job's `requested` now. Best effort: the request itself is committed."""
    try:
        with engine.begin() as conn:
            conn.execute(text("SET LOCAL synchronous_commit = off"))
            conn.execute(select(func.pg_notify(requests_channel(cluster_id), str(job_id))))
    except SQLAlchemyError as error:
        log.warning("request not announced; the worker hears of it at its next heartbeat", error=str(error))
