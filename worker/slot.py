"""The slot: one thread that claims jobs until nothing is due and runs each to its end, one at a time.

It is woken by the doorbell (`wake`, from the Celery task) and looks by itself now and then, with jitter: where jobs
are due it rings for itself, so that work normally starts one way; where Redis does not take that message, or nobody
heard the last one, it claims without. `busy` and the pipe `freed` tell `worker.app` when to listen to Redis.
"""

from __future__ import annotations

import os
import random
import threading

import structlog
from sqlalchemy.exc import DBAPIError

from jobs.lifecycle.claim import Claim, claim, has_due
from jobs.states import State
from worker.attempt import Attempt
from worker.clock import boottime
from worker.host import Host
from worker.verdict import Requeue
from worker.writes import is_outage

log = structlog.get_logger(__name__)


class Slot:
    """A thread from entering the context to leaving it, which waits for the running attempt."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._attempt: Attempt | None = None
        self._rang = False
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

    def stop(self) -> None:
        """Claim nothing more, and give the running job back."""
        self._stopping.set()
        with self._lock:
            if self._attempt is not None:
                self._attempt.verdict.decide(Requeue("drained"))
        self._bell.set()

    def work_once(self) -> bool:
        """Run the best due job, if there is one, in this thread."""
        claimed_at = boottime()
        claimed = self._claim()
        if claimed is None:
            return False
        with self._lock:
            self._attempt = Attempt(self._host, claimed, claimed_at=claimed_at)
            if self._stopping.is_set():
                self._attempt.verdict.decide(Requeue("drained"))
        state = self._attempt.run()
        with self._lock:
            self._attempt = None
        if state is State.QUEUED:
            self._host.doorbell.ring(str(claimed.spec.resources.queue))
        return True
