"""The Celery side of a worker: hears the doorbell on Redis and wakes the slot. Knows no jobs and no database.

The task returns at once and the slot runs the job in its own thread, so Redis and Celery may come and go meanwhile.
`Gate` takes a message only while the slot is idle, and looks again the moment it becomes idle: a wake goes to a
worker that can act on it, without waiting for the tick of Celery's loop. Celery's worker is its library class, not
its command: no signal handlers, no log set-up of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery import Celery, bootsteps
from celery.worker import state as celery_state
from celery.worker.worker import WorkController

from jobs.doorbell import WAKE_TASK, celery_options, wake_queue
from worker.slot import Slot


def make_app(slot: Slot, *, cluster_id: UUID, redis_url: str) -> Celery:
    """The Celery app that wakes `slot`."""
    app = Celery("traind-worker", set_as_current=False, fixups=[])
    app.conf.update(celery_options(cluster_id, redis_url), broker_connection_max_retries=None)

    def wake(_queue: str) -> None:
        slot.wake()

    app.task(wake, name=WAKE_TASK)

    def may_consume() -> bool:
        """In place of kombu's own count, which stays above the limit for good once an ack was lost with Redis."""
        return not slot.busy and not celery_state.reserved_requests

    class Gate(bootsteps.StartStopStep):  # type: ignore[misc]
        """Begins with each connection to Redis, after Celery's own consumer."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            consumer.task_consumer.channel.qos.can_consume = may_consume
            consumer.hub.add_reader(slot.freed, os.read, slot.freed, 4_096)

        def stop(self, consumer: Any) -> None:
            consumer.hub.remove(slot.freed)

    app.steps["consumer"].add(Gate)
    return app


def listen(app: Celery, *, name: str, queues: Sequence[str]) -> int:
    """Hear wakes for `queues` in this thread until `hang_up`, over any outage of Redis. 0, or 1 if Celery failed."""
    alone = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
    heard = [wake_queue(queue) for queue in queues]
    controller = WorkController(app=app, hostname=f"traind@{name}", queues=heard, **alone)
    controller.start()
    return int(controller.exitcode or 0)


def hang_up() -> None:
    """Make `listen` return, at its loop's next turn; from any thread or signal handler."""
    celery_state.should_stop = 0
