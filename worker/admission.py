"""Whether a checkpoint is taken in: not while the database has no room for it.

One of an interval is then skipped, and the training goes on; the job's last one, or that of a pause or a drain, waits
for room within a bound. The job's events say so, once for each stretch.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import DBAPIError

from jobs.storage import Storage
from worker.training.messages import Checkpoint
from worker.writes import is_outage

POLL_SECONDS = 1.0

log = structlog.get_logger(__name__)


class NoRoom(Exception):
    """A checkpoint that cannot be skipped has waited for its time; the text says why."""


class Admission:
    """Of one attempt. `tell` writes the event of a checkpoint, with the reason; `pause` waits, and may raise."""

    def __init__(
        self,
        storage: Storage,
        *,
        wait_seconds: float,
        tell: Callable[[Checkpoint, str], None],
        pause: Callable[[float], None],
    ) -> None:
        self._storage = storage
        self._wait_seconds = wait_seconds
        self._tell = tell
        self._pause = pause
        self._told: set[str] = set()

    def admit(self, checkpoint: Checkpoint) -> bool:
        """Whether to upload it; False: to skip it. Raises NoRoom, and what `pause` raises."""
        give_up_at = time.monotonic() + self._wait_seconds
        while (lack := self._lack(checkpoint)) is not None:
            if checkpoint.kind not in self._told:
                log.warning("a checkpoint is not taken in", step=checkpoint.step, kind=checkpoint.kind, reason=lack)
                self._tell(checkpoint, lack)
                self._told.add(checkpoint.kind)
            if checkpoint.kind == "interval":
                return False
            if time.monotonic() > give_up_at:
                raise NoRoom(lack)
            self._pause(POLL_SECONDS)
        self._told.clear()
        return True

    def _lack(self, checkpoint: Checkpoint) -> str | None:
        """A database that does not answer is no lack of room: the upload waits for it."""
        try:
            return self._storage.lack(checkpoint.model_size + checkpoint.state_size)
        except DBAPIError as error:
            if not is_outage(error):
                raise
            return None
