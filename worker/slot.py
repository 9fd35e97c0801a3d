"""The slot: one thread that claims jobs until nothing is due and runs each to its end, one at a time.

It is woken by the doorbell (`wake`, from the Celery task) and looks by itself now and then, with jitter: where jobs
are due it rings for itself, so that work normally starts one way; where Redis does not take that message, or nobody
heard the last one, it claims without. `busy` and the pipe `freed` tell `worker.app` when to listen to Redis.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time

import structlog
from sqlalchemy.exc import DBAPIError

from jobs.lifecycle.claim import Claim, claim, has_due
from jobs.lifecycle.crash import DATA_FAULTS
from jobs.states import State
from worker.attempt import Attempt
from worker.clock import boottime
from worker.data_files import Stamp
from worker.host import Host
from worker.verdict import ErrorDocument
from worker.writes import is_outage

log = structlog.get_logger(__name__)

IDLE_SECONDS = 60.0
"""An idle slot that did not move for so long hangs."""


class Slot:
    """A thread from entering the context to leaving it, which waits for the running attempt."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._attempt: Attempt | None = None
        self._rang = False
        self._turned_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="slot")
        self.busy = False
        self.freed, self._free = os.pipe()
        os.set_blocking(self._free, False)

    def __enter__(self) -> Slot:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()

    def wake(self) -> None:
        """Jobs may be due."""
        self.busy = True
        self._bell.set()

    def alive(self) -> bool:
        """Whether the thread moves: it claims, looks, or watches over an attempt."""
        attempt = self._attempt
        limit = max(IDLE_SECONDS, 3 * self._host.settings.idle_poll_seconds)
        return attempt.alive() if attempt is not None else time.monotonic() - self._turned_at < limit

    def stop(self) -> None:
        """Claim nothing more, and give the running job back with a checkpoint."""
        self._stopping.set()
        with self._lock:
            if self._attempt is not None:
                self._attempt.drain()
        self._bell.set()
        self._poke()

    def work_once(self) -> bool:
        """Run the best due job, if there is one and the machine is fit, in this thread."""
        if not self._host.condition.look():
            return False
        claimed_at = boottime()
        claimed = self._claim()
        if claimed is None:
            return False
        files = self._host.data.stamp(claimed.spec.dataset.name)
        with self._lock:
            self._attempt = Attempt(self._host, claimed, claimed_at=claimed_at)
            if self._stopping.is_set():
                self._attempt.drain()
        try:
            state = self._attempt.run()
            self._judge(claimed, files, self._attempt.fault)
        finally:
            self._turned_at = time.monotonic()
            with self._lock:
                self._attempt = None
        if state is State.QUEUED:
            self._host.doorbell.ring(str(claimed.spec.resources.queue))
        return True

    def _judge(self, claimed: Claim, files: Stamp, fault: ErrorDocument | None) -> None:
        """What the attempt's ending says of this machine: it lacks the data, or how fit it is."""
        if fault is not None and fault["code"] in DATA_FAULTS:
            self._host.data.refuse(claimed.spec.dataset.name, files, fault["message"])
        else:
            told = None if fault is None else f"{fault['code']}: {fault['message']}"
            self._host.condition.attempted(claimed.lease.job_id, told)

    def _run(self) -> None:
        while not self._stopping.is_set():
            poll_seconds = self._host.settings.idle_poll_seconds
            heard = self._bell.wait(poll_seconds * random.uniform(0.75, 1.25))  # noqa: S311
            self._bell.clear()
            self._turned_at = time.monotonic()
            try:
                if self._host.condition.look() and (heard or self._look()):
                    self._work()
            except DBAPIError as error:
                log.warning("the database did not answer; looking again soon", error=str(error.orig))
            except Exception:
                log.exception("the slot failed; looking again soon")
            self.busy = self._host.condition.trouble is not None  # an ill worker takes no wake from a well one
            self._poke()

    def _look(self) -> bool:
        """Whether to claim without being woken. Rings for itself first where jobs are due."""
        with self._host.engine.begin() as conn:
            host, settings = self._host, self._host.settings
            due = has_due(conn, settings.worker_queues, settings.worker_device, host.memory_bytes, host.data.lacks)
        unheard, self._rang = self._rang, False
        if not due:
            return False
        if unheard:
            log.info("the doorbell was not heard; working without it")
            return True
        self._rang = self._host.doorbell.ring(self._host.settings.worker_queues[0])
        return not self._rang

    def _work(self) -> None:
        self.busy = True
        self._rang = False
        while not self._stopping.is_set() and self.work_once():
            pass

    def _claim(self) -> Claim | None:
        """The best due job; a connection that went stale in the pool is replaced at once."""
        try:
            return self._claim_now()
        except DBAPIError as error:
            if not is_outage(error):
                raise
        return self._claim_now()

    def _claim_now(self) -> Claim | None:
        settings = self._host.settings
        with self._host.engine.begin() as conn:
            return claim(
                conn,
                worker_id=self._host.worker_id,
                queues=settings.worker_queues,
                device=settings.worker_device,
                threads=settings.worker_threads,
                cores=self._host.cores,
                memory_bytes=self._host.memory_bytes,
                lacks=self._host.data.lacks,
                lease_seconds=settings.lease_seconds,
            )

    def _poke(self) -> None:
        """Make Celery's loop turn once."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._free, b".")
