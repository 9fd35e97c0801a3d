"""Whether this worker's machine is fit to train: looked at before each claim, so that an ill worker claims nothing.

Two signs: the scratch folder cannot be used, or attempts in a row ended by a fault of this machine. After each of the
latter the worker rests, longer with each job that met it, so that other workers take the jobs, and then tries again.
The same job again says no more about the machine: its own back-off lets others go before it.
"""

from __future__ import annotations

import time
from uuid import UUID

import structlog

from worker.scratch import Scratch

LONGEST_REST_SECONDS = 300.0

log = structlog.get_logger(__name__)


class Condition:
    """Of one worker process. `look` and `attempted` are the slot's; `trouble` may be read by any thread."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._met_by: set[UUID] = set()
        self._last = ""
        self._rests_until = 0.0
        self.trouble: str | None = None
        """What was wrong at the last look, and what mends it; None: nothing."""

    def look(self) -> bool:
        """Whether the machine is fit now. Raises nothing."""
        trouble = self._scratch.trouble() or self._resting()
        if trouble != self.trouble and trouble is not None:
            log.error("this worker's machine is ill; it claims nothing until that is mended", trouble=trouble)
        if trouble is None and self.trouble is not None:
            log.info("this worker's machine is well again")
        self.trouble = trouble
        return trouble is None

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
