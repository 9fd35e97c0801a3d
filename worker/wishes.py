"""What is asked of one attempt: to pause (by a user, who may take that back), to drain (its worker stops), or to save
what it has because its time is nearly over.

The trainer is told to stop at its next safe point and takes a checkpoint there; its last message then ends the
attempt. A trainer that is not ready has computed nothing yet, so it is ended at once. Each wish has its time, after
which the trainer is killed and the attempt ends as of the last complete checkpoint. A drain goes before a pause: what
becomes of the job is decided by its row, not here. Called by the slot, the heartbeat and the pipe, from their threads.
"""

from __future__ import annotations

import math
import threading
import time

import structlog

from jobs.settings import Settings
from worker.trainer import Trainer
from worker.training.messages import StopKind
from worker.verdict import Requeue, Verdict

log = structlog.get_logger(__name__)

REASONS: dict[StopKind, str] = {"pause": "paused", "drain": "drained", "limit": "max-runtime"}
"""As they stand in the event of an attempt that stopped when asked; `…-expired` where its time was over before."""


class Wishes:
    """Of one attempt. Whatever is told comes to the trainer in the order in which it was wished."""

    def __init__(self, settings: Settings, trainer: Trainer, verdict: Verdict) -> None:
        self._seconds: dict[StopKind, float] = {"pause": settings.pause_seconds, "drain": settings.drain_seconds}
        self._trainer = trainer
        self._verdict = verdict
        self._lock = threading.Lock()
        self._until: dict[StopKind, float] = {}
        self._told: StopKind | None = None
        self._ready = False

    def set_ready(self) -> None:
        """The trainer has loaded everything: from now on there is something to save."""
        with self._lock:
            self._ready = True

    def pause(self) -> None:
        """A user wants it held; repeated with each heartbeat."""
        self._wish("pause")

    def go_on(self) -> None:
        """No user wants it held, or any more."""
        with self._lock:
            if self._until.pop("pause", None) is not None:
                self._tell()

    def drain(self) -> None:
        """The worker stops."""
        self._wish("drain")

    def limit(self) -> None:
        """The attempt's time is nearly over. A trainer that is not ready has nothing to save, and is not asked."""
        with self._lock:
            if self._ready and "limit" not in self._until:
                self._until["limit"] = math.inf
                self._tell()

    @property
    def drain_until(self) -> float | None:
        """Until when a draining worker may be at it (monotonic); None where it does not drain."""
        return self._until.get("drain")

    def overdue(self) -> Requeue | None:
        """The ending, where the trainer did not stop in its time."""
        with self._lock:
            now = time.monotonic()
            late = [kind for kind, until in self._until.items() if until < now]
        return Requeue(f"{late[0]}-expired") if late else None

    def _wish(self, kind: StopKind) -> None:
        with self._lock:
            if kind in self._until:
                return
            self._until[kind] = time.monotonic() + self._seconds[kind]
            if self._ready:
                self._tell()
            else:
                self._verdict.decide(Requeue(REASONS[kind]))

    def _tell(self) -> None:
        order: tuple[StopKind, ...] = ("drain", "pause", "limit")
        wanted = next((kind for kind in order if kind in self._until), None)
        if wanted != self._told:
            self._told = wanted
            self._trainer.ask_to_stop(wanted)
            log.info("the trainer was asked to stop" if wanted else "the trainer may go on", wish=wanted)
