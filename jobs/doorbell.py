"""The doorbell: a Celery message that names a queue and nothing else. The job's row is the truth.

Rung by the api after its commit and by workers that see due rows. A message that is lost, doubled or stale does no
harm: whoever hears one claims the best due job, and idle workers look by themselves. So nothing here may raise or
take long; `celery_options` are shared with `worker.app`, which listens.
"""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from uuid import UUID

import structlog
from celery import Celery
from redis.connection import parse_url

from jobs.log import redact

log = structlog.get_logger(__name__)

WAKE_TASK = "traind.wake"
TIMEOUT_SECONDS = 0.5
"""Of each step: to connect, to send, to wait for the next byte."""
RING_SECONDS = 3.0
"""Of all steps together, so that a Redis that drips its answers byte by byte holds up nobody."""
MAX_QUIET_SECONDS = 5.0
MAX_WAITING = 100
"""Messages that nobody has heard yet, of one queue; more would say no more."""
_SEND = {"retry": False, "ignore_result": True}


def wake_queue(queue: str) -> str:
    """Name of the Celery queue whose messages wake the workers of `queue`."""
    return f"wake.{queue}"


def broker_url(redis_url: str) -> str:
    """`redis_url` as redis-py takes it (redis://, rediss://, unix://), in Celery's words.

    A rediss:// URL that does not say otherwise has its certificate checked; Celery would not.
    Raises ValueError for another kind of URL.
    """
    known = parse_url(redis_url)  # type: ignore[no-untyped-call]
    database = known.get("db", 0)
    url = urlsplit(redis_url)
    user = quote(str(known.get("username", "")), safe="")
    login = f"{user}:{quote(known['password'], safe='')}@" if "password" in known else ""
    if "path" in known:
        return f"redis+socket://{login}{quote(known['path'])}?virtual_host={database}"
    query = {key: value for key, value in parse_qsl(url.query) if key.startswith("ssl_")}
    if url.scheme == "rediss":
        query.setdefault("ssl_cert_reqs", "required")
    address = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{login}{address}/{database}" + (f"?{urlencode(query)}" if query else "")


def celery_options(cluster_id: UUID, redis_url: str) -> dict[str, Any]:
    """Celery's settings, for those who ring and those who listen."""
    name = f"traind:{cluster_id}"
    return {
        "broker_url": broker_url(redis_url),
        "broker_transport_options": {
            "global_keyprefix": f"{name}:",
            "client_name": name,
            "socket_connect_timeout": 2.0,
        },
        "broker_connection_retry_on_startup": True,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_pool": "threads",
        "worker_concurrency": 1,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "enable_utc": True,
    }


class Doorbell:
    """Rings for the workers of a queue, on connections of its own that give up soon. Safe between threads.

    After a failure it keeps quiet for a second, then two, up to five, so that a Redis that hangs slows nobody down.
    """

    def __init__(self, redis_url: str, cluster_id: UUID) -> None:
        options = celery_options(cluster_id, redis_url)
        options["broker_transport_options"] |= {
            "socket_timeout": TIMEOUT_SECONDS,
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "max_retries": 0,
        }
        limits = {"broker_connection_timeout": TIMEOUT_SECONDS, "broker_pool_acquire_timeout": TIMEOUT_SECONDS}
        self._app = Celery("traind-doorbell", set_as_current=False, fixups=[])
        self._app.conf.update(options | limits)
        self._lock = Lock()
        self._failures = 0
        self._quiet_until = 0.0

    def ring(self, queue: str) -> bool:
        """Wake a worker of `queue`; False where Redis did not take the message. Never raises."""
        if time.monotonic() < self._quiet_until:
            return False
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        Thread(target=self._knock, args=(queue, outcome), name="doorbell", daemon=True).start()
        try:
            error = outcome.get(timeout=RING_SECONDS)
        except Empty:
            error = TimeoutError(f"no whole answer within {RING_SECONDS:g} s")
        if error is not None:
            self._failed(error)
            return False
        self._worked()
        return True

    def _knock(self, queue: str, outcome: SimpleQueue[Exception | None]) -> None:
        """What hangs here keeps one of the pool's few connections, so there are never many such threads."""
        try:
            with self._app.pool.acquire(timeout=TIMEOUT_SECONDS) as connection:
                if connection.default_channel.client.llen(wake_queue(queue)) < MAX_WAITING:
                    self._app.send_task(
                        WAKE_TASK, args=[queue], queue=wake_queue(queue), connection=connection, **_SEND
                    )
        except Exception as error:
            outcome.put(error)
        else:
            outcome.put(None)

    def close(self) -> None:
        """Close the connections; Celery's own `close` forgets them only."""
        self._app.pool.force_close_all()
        self._app.close()

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            self._quiet_until = time.monotonic() + min(self._failures, MAX_QUIET_SECONDS)
            first = self._failures == 1
        if first:
            log.warning(
                "Redis does not answer; workers find jobs by looking themselves",
                error=type(error).__name__,
                reason=redact(str(error)),
            )

    def _worked(self) -> None:
        if self._failures:
            with self._lock:
                self._failures = 0
            log.info("Redis answers again")
