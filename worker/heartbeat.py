"""The heartbeat of one attempt: holds its advisory lock, renews its lease, hears requests, allows the trainer to run.

It has a connection of its own, autocommitting and never pooled, because the lock and LISTEN belong to the session.
Each renewal allows the trainer to run until shortly before the lease ends, counted from before the renewal was sent.
When the connection breaks, the trainer is frozen until lock and lease are ours again: without a live lease nothing
computes. It stops renewing when `alive` says that the rest of the slot hangs.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError

from jobs.lifecycle.lease import Lease, holder_name, lease_lock_key
from jobs.lifecycle.work import heartbeat, hold
from jobs.notify import requests_channel
from jobs.states import Request, State
from worker.clock import boottime
from worker.host import Host
from worker.trainer import Trainer
from worker.verdict import Finish, Verdict
from worker.wishes import Wishes
from worker.writes import FIRST_PAUSE_SECONDS

LEASE_SHARE = 0.95
"""The trainer ends by itself after this share of a lease that is not renewed."""
LONGEST_PAUSE_SECONDS = 0.5

log = structlog.get_logger(__name__)

_END_FORMER = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = :name AND datname = current_database() AND pid <> pg_backend_pid()
""")


def allowance(host: Host, since: float) -> float:
    """Until when a trainer may run whose lease was renewed by a message sent at `since` (boottime)."""
    return since + host.settings.lease_seconds * LEASE_SHARE


class Heartbeat:
    """A thread from entering the context to leaving it; `held` is set once lock and lease are ours."""

    def __init__(
        self,
        host: Host,
        lease: Lease,
        *,
        trainer: Trainer,
        verdict: Verdict,
        wishes: Wishes,
        alive: Callable[[], bool],
    ) -> None:
        self._host = host
        self._lease = lease
        self._trainer = trainer
        self._verdict = verdict
        self._wishes = wishes
        self._alive = alive
        self._pause = FIRST_PAUSE_SECONDS
        self._woken, self._wake = os.pipe()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=verdict.guard, args=(self._run,), name="heartbeat", daemon=True)
        self.held = threading.Event()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        os.write(self._wake, b".")
        self._thread.join(self._host.settings.heartbeat_seconds)
        if not self._thread.is_alive():
            os.close(self._woken)
            os.close(self._wake)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._host.lease_engine.connect() as conn:
                    self._beat_on(conn)
            except (DBAPIError, psycopg.Error) as error:
                self._trainer.freeze()
                log.warning("the heartbeat's connection broke; the trainer waits", error=str(error).splitlines()[0])
                self._stopping.wait(self._pause)
                self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)

    def _beat_on(self, conn: Connection) -> None:
        """Beat on this connection until it breaks or all is over."""
        driver: Any = conn.connection.driver_connection
        driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(requests_channel(self._host.cluster_id))))
        self._take_lock(conn)
        if self._stopping.is_set():
            return
        self._renew(conn)
        hold(conn, self._lease, backend_pid=driver.info.backend_pid)
        while not self._stopping.is_set():
            self._listen(driver)
            if self._alive():
                self._renew(conn)

    def _take_lock(self, conn: Connection) -> None:
        """Take the lease's lock, from a former connection of our own where the server has not missed it yet."""
        key = lease_lock_key(self._host.cluster_id, self._lease)
        while not conn.execute(select(func.pg_try_advisory_lock(key))).scalar_one():
            conn.execute(_END_FORMER, {"name": holder_name(self._host.worker_id)})
            if self._stopping.wait(FIRST_PAUSE_SECONDS):
                return

    def _renew(self, conn: Connection) -> None:
        sent_at = boottime()
        request = heartbeat(conn, self._lease, lease_seconds=self._host.settings.lease_seconds)
        self._trainer.extend(allowance(self._host, sent_at))
        self._pause = FIRST_PAUSE_SECONDS
        self.held.set()
        match request:
            case Request.CANCEL:
                self._verdict.decide(Finish(State.CANCELLED, summary={}))
            case Request.PAUSE:
                self._wishes.pause()
            case Request.NONE:
                self._wishes.go_on()

    def _listen(self, driver: psycopg.Connection[Any]) -> None:
        """Return when the next heartbeat is due: in time, at once on a request for this job, or to stop."""
        due = time.monotonic() + self._host.settings.heartbeat_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(driver.fileno(), selectors.EVENT_READ)
            while (left := due - time.monotonic()) > 0 and not self._stopping.is_set():
                if any(notify.payload == str(self._lease.job_id) for notify in driver.notifies(timeout=0)):
                    return
                selector.select(left)
