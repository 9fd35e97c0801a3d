"""Whether this worker is fit to train: looked at before each claim, so that an ill worker claims nothing.

Two signs of an ill machine: the scratch folder cannot be used, or attempts in a row ended by a fault of this machine.
After each of the latter the worker rests, longer with each job that met it, so that other workers take the jobs, and
then tries again. The same job again says no more about the machine: its own back-off lets others go before it.

A database without room for checkpoints is a third: what would be trained could not be saved. It is not this machine's.
"""

from __future__ import annotations

import time
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from jobs.storage import Storage
from worker.scratch import Scratch

LONGEST_REST_SECONDS = 300.0

log = structlog.get_logger(__name__)


class Condition:
    """Of one worker process. `look` and `attempted` are the slot's; the rest may be read by any thread."""

    def __init__(self, scratch: Scratch, storage: Storage) -> None:
        self._scratch = scratch
        self._storage = storage
        self._met_by: set[UUID] = set()
        self._last = ""
        self._rests_until = 0.0
        self._full = False
        self.of_machine: str | None = None
        """What was wrong with the machine at the last look, and what mends it; None: nothing."""
        self.trouble: str | None = None
        """The same, or what is wrong with the database's disk."""

    def look(self) -> bool:
        """Whether to claim now. Raises nothing."""
        former, self.of_machine = self.of_machine, self._scratch.trouble() or self._resting()
        if self.of_machine not in (None, former):
            log.error("this worker's machine is ill; it claims nothing until that is mended", trouble=self.of_machine)
        if self.of_machine is None and former is not None:
            log.info("this worker's machine is well again")
        lack = self._lack()
        if (lack is not None) != self._full:
            self._full = lack is not None
            log.warning("the database's room for checkpoints", lack=lack or "there is room again")
        self.trouble = self.of_machine or lack
        return self.trouble is None

    def _lack(self) -> str | None:
        """A database that does not answer is no lack of room."""
        try:
            return self._storage.lack()
        except DBAPIError:
            return None

    def attempted(self, job_id: UUID, fault: str | None) -> None:
        """An attempt of this job ended; `fault` is what it said if this machine's fault was the cause."""
        self._met_by = self._met_by | {job_id} if fault else set()
        self._last = fault or ""
        self._rests_until = time.monotonic() + rest_seconds(len(self._met_by))

    def _resting(self) -> str | None:
        if time.monotonic() >= self._rests_until:
            return None
        several = f"attempts of {len(self._met_by)} jobs" if len(self._met_by) > 1 else "an attempt"
        return f"{several} ended by a fault of this machine, and it rests before the next: {self._last}"


def rest_seconds(jobs: int) -> float:
    """How long to claim nothing once n jobs met a fault in a row: 1, 2, 4 s and so on, at most five minutes."""
    return 0.0 if jobs == 0 else min(2.0 ** min(jobs - 1, 30), LONGEST_REST_SECONDS)
