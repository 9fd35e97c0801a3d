"""What all requests of one api process share: settings, connection pool, doorbell, verified keys.

Made by `api.app.create_app`, handed to endpoints by `ServiceDep`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Depends, Request
from sqlalchemy import Connection

from api.key_cache import KeyCache
from jobs.database import API_POOL_SIZE, cluster_id, make_patient_engine
from jobs.doorbell import Doorbell
from jobs.keys import Principal
from jobs.lifecycle.caller import sign
from jobs.notify import notify_request
from jobs.settings import Settings
from jobs.storage import Storage

log = structlog.get_logger("api")


class Service:
    """Connects to nothing before the first request, so the api starts and reports while the database is down.

    Raises ValueError where the settings lack the servers' URLs.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None or settings.redis_url is None:
            raise ValueError(
                "TRAIND_DATABASE_URL and TRAIND_REDIS_URL must be set; `traind up` starts servers and sets them"
            )
        self.settings = settings
        self.redis_url = settings.redis_url.get_secret_value()
        self.engine = make_patient_engine(
            settings.database_url.get_secret_value(),
            application_name="traind-api",
            pool_size=API_POOL_SIZE,
            patience_seconds=settings.database_timeout_seconds,
        )
        self.storage = Storage(self.engine, settings)
        self.keys = KeyCache()

    @cached_property
    def cluster_id(self) -> UUID:
        with self.engine.begin() as connection:
            return cluster_id(connection)

    @cached_property
    def doorbell(self) -> Doorbell:
        return Doorbell(self.redis_url, self.cluster_id)

    @contextmanager
    def transaction(self, caller: Principal) -> Iterator[Connection]:
        """A transaction that writes in the caller's name: what it makes and its events say so."""
        with self.engine.begin() as connection:
            sign(connection, caller)
            yield connection

    def ring(self, queue: str) -> None:
        """Wake a worker of the queue. After commit, so it never raises; idle workers look by themselves."""
        try:
            self.doorbell.ring(queue)
        except Exception as error:
            log.warning("the queue's workers were not woken; they look by themselves", error=type(error).__name__)

    def notify(self, job_id: UUID) -> None:
        """Tell the job's worker that something was asked of it. After commit, so it never raises; the heartbeat is
        the fallback.
        """
        try:
            notify_request(self.engine, self.cluster_id, job_id)
        except Exception as error:
            log.warning("request not announced; the worker hears of it later", error=type(error).__name__)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
