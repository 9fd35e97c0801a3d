"""Work that a worker process does again and again beside its slot, each in a thread: reaping and housekeeping.

Every worker does it, for every worker may be the only one left; the functions it calls see to it that many at once
do no harm. A round that fails is logged and the next one comes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog
from sqlalchemy.exc import DBAPIError

from jobs.blobs import drop_empty_partitions, ensure_partitions
from jobs.garbage import collect
from jobs.lifecycle.reap import reap
from jobs.lifecycle.workers import SEEN_SECONDS, see_worker, tidy_workers
from jobs.metrics.compact import compact_due
from jobs.states import State
from worker.health import write_health
from worker.host import Host
from worker.parent import Parent
from worker.slot import Slot

HUNG = 70
"""Exit code of a worker whose slot hangs (EX_SOFTWARE)."""
PARTITIONS_SECONDS = 2.0
COMPACT_SECONDS = 10.0
TIDY_SECONDS = 60.0
TELL_SECONDS = 3.0
COMPACT_ATTEMPTS = 16

log = structlog.get_logger(__name__)


class Rounds:
    """Calls `body` every `seconds`, from entering the context to leaving it; the first time at once."""

    def __init__(self, name: str, body: Callable[[], object], *, seconds: float) -> None:
        self._body = body
        self._seconds = seconds
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Rounds:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._body()
                self._failing = False
            except DBAPIError as error:
                if not self._failing:
                    log.warning("a round failed; the next one comes", round=self._thread.name, error=str(error.orig))
                self._failing = True
            except Exception:
                log.exception("a round failed; the next one comes", round=self._thread.name)
            self._stopping.wait(self._seconds)


def reaper(host: Host) -> Rounds:
    """Puts the jobs of dead workers back, and rings for them."""

    def round_() -> None:
        settings = host.settings
        with host.engine.begin() as conn:
            reaped = reap(
                conn,
                cluster_id=host.cluster_id,
                suspicion_seconds=settings.suspicion_seconds,
                lease_seconds=settings.lease_seconds,
            )
        for one in reaped:
            log.warning("attempt reaped", job=str(one.job_id), attempt=one.attempt, code=one.code, state=one.state)
            if one.state is State.QUEUED:
                host.doorbell.ring(one.queue)

    return Rounds("reaper", round_, seconds=host.settings.reap_interval_seconds)


def housekeeping(host: Host) -> tuple[Rounds, ...]:
    """Partitions ahead of the blobs; metrics of ended attempts compacted; garbage and lost workers tidied away."""
    return (
        Rounds("partitions", lambda: ensure_partitions(host.engine), seconds=PARTITIONS_SECONDS),
        Rounds("compaction", lambda: compact_due(host.engine, limit=COMPACT_ATTEMPTS), seconds=COMPACT_SECONDS),
        Rounds("tidying", lambda: tidy(host), seconds=TIDY_SECONDS),
    )


def watchdog(slot: Slot) -> Rounds:
    """Ends a worker whose slot hangs, so that whoever keeps it running starts another one in its place.

    Its trainer ends with it, and its job goes on elsewhere. Two looks in a row must find it hanging: a process that
    was stopped for a while has not moved either when it goes on.
    """
    hung = 0

    def round_() -> None:
        nonlocal hung
        hung = 0 if slot.alive() else hung + 1
        if hung >= 2:
            log.critical("the slot hangs; the worker ends")
            os._exit(HUNG)

    return Rounds("watchdog", round_, seconds=SEEN_SECONDS)


def tidy(host: Host) -> None:
    """Remove blobs that nothing will read, and workers that are long gone."""
    removed = collect(host.engine, room=host.storage.little_room())
    if removed.n_blobs:
        log.info("garbage removed", blobs=removed.n_blobs, bytes=removed.n_bytes)
    drop_empty_partitions(host.engine)
    with host.engine.begin() as conn:
        tidy_workers(conn)


def sign_of_life(host: Host, slot: Slot) -> Rounds:
    """Says that this worker is alive: to the list of workers, and to the health check as long as the slot moves.

    What is wrong with its machine is told to both, what is wrong with the database's disk to the list only: no other
    worker in its place would mend that.
    """

    def round_() -> None:
        trouble = host.condition.trouble
        try:
            if slot.alive():
                write_health(host.settings.scratch_dir, host.name, trouble=host.condition.of_machine)
        except OSError as error:
            log.warning("the health file cannot be written", error=str(error))
        host.data.look()
        with host.engine.begin() as conn:
            see_worker(conn, host.worker_id, trouble=trouble, lacks=host.data.lacks)

    return Rounds("sign-of-life", round_, seconds=SEEN_SECONDS)


def word_to(parent: Parent, host: Host) -> Rounds:
    """Tells who started this worker whether it takes jobs. A rest of a second or two is no news."""
    return Rounds("word", lambda: parent.tell(host.condition.trouble), seconds=TELL_SECONDS)
